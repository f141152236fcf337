"""Operators of newer opsets that older ones say in other words: CastLike, GridSample, RoiAlign."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite

_CAST_LIKE, _GRID_SAMPLE, _ROI_ALIGN = 15, 20, 16
_OLD_MODES = {"linear": "bilinear", "cubic": "bicubic"}


def cast_like(bench: Bench) -> str | None:
    if not bench.lacks(_CAST_LIKE):
        return None
    kind = bench.elem_type(bench.node.input[1])
    if not kind:
        raise NoExactRewrite(f"the type of {bench.node.input[1]} is not known")
    bench.finish("Cast", bench.node.input[:1], to=kind)
    return "written as Cast"


def grid_sample(bench: Bench) -> str | None:
    """Its modes were called otherwise before opset 20, which also added volumes."""
    if not bench.lowered_below(_GRID_SAMPLE):
        return None
    if bench.rank(bench.node.input[0]) != 4:
        raise NoExactRewrite("only maps, rank 4, are sampled before opset 20")
    mode = bench.attribute("mode", "linear")
    kept = {name: bench.attribute(name) for name in ("align_corners", "padding_mode")}
    bench.finish("GridSample", bench.node.input, mode=_OLD_MODES.get(mode, mode), **kept)
    return "its mode by its older name"


def roi_align(bench: Bench) -> str | None:
    """Before opset 16 there is one coordinate transformation, and it is not the later default."""
    if not bench.lowered_below(_ROI_ALIGN):
        return None
    found = bench.attribute("coordinate_transformation_mode", "half_pixel")
    if found != "output_half_pixel":
        raise NoExactRewrite(f"coordinate transformation {found} came with opset 16")
    names = ("mode", "output_height", "output_width", "sampling_ratio", "spatial_scale")
    bench.finish("RoiAlign", bench.node.input, **{name: bench.attribute(name) for name in names})
    return "written without its coordinate transformation, the only one of opset 10"
