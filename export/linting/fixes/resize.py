"""Resize without what opset 18 added: axes, antialias, aspect policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite

if TYPE_CHECKING:
    import numpy as np

_SINCE = 18
_KEPT = (
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "extrapolation_value",
    "mode",
    "nearest_mode",
)


def for_every_axis(bench: Bench) -> str | None:
    if not bench.lowered_below(_SINCE):
        return None
    if bench.attribute("coordinate_transformation_mode") == "half_pixel_symmetric":
        raise NoExactRewrite("half_pixel_symmetric is a mode of opset 19")
    if bench.attribute("antialias", 0):
        raise NoExactRewrite("antialias is an option of opset 18")
    policy = bench.attribute("keep_aspect_ratio_policy", "stretch")
    if bench.given(3) and policy != "stretch":
        raise NoExactRewrite(f"keep_aspect_ratio_policy {policy} is an option of opset 18")
    axes = bench.attribute("axes")
    if axes is None and bench.attribute("antialias") is None and bench.attribute("keep_aspect_ratio_policy") is None:
        return None
    inputs = list(bench.node.input) if axes is None else _inputs(bench, axes)
    bench.finish("Resize", inputs, **{name: bench.attribute(name) for name in _KEPT})
    return "written without the attributes of opset 18" if axes is None else "scales or sizes given for every axis"


def _inputs(bench: Bench, axes: list[int]) -> list[str]:
    """The node's inputs with a scale or size for each axis of its input."""
    import numpy as np

    if bench.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise NoExactRewrite("it crops and has axes; no rewrite is made of both")
    x = bench.node.input[0]
    rank = bench.rank(x)
    places = [axis % rank for axis in axes]
    if bench.given(2):
        scales: np.ndarray[Any, Any] = np.ones(rank, np.float32)
        scales[places] = _constant(bench, bench.given(2))
        return [x, "", bench.constant(scales, "scales")]
    extents = bench.shape(x) or ()
    if any(extent is None for axis, extent in enumerate(extents) if axis not in places):
        raise NoExactRewrite("it has sizes for some axes, and the extents of the others are open")
    sizes = np.array([extent or 0 for extent in extents], np.int64)
    sizes[places] = _constant(bench, bench.given(3))
    return [x, "", "", bench.constant(sizes, "sizes")]


def _constant(bench: Bench, name: str | None) -> np.ndarray[Any, Any]:
    value = None if name is None else bench.value(name)
    if value is None:
        raise NoExactRewrite("its scales or sizes are computed when the network runs")
    return value
