"""Resize and GridSample: modes, scales, and attributes that older parsers do not read."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label
from deploy_attn.export.linting.origin import origin_of
from deploy_attn.export.linting.parser import Parser
from deploy_attn.export.linting.rules.constants import must_be_constant

if TYPE_CHECKING:
    import onnx

_CUBIC = (8, 5)
_COMPUTED_SCALES = (8, 4)
_CHECKS_NEW_ATTRIBUTES = (10, 0)  # those of opset 18: read by no older parser
_GRID_5D = (10, 15)
_COORDINATES = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")
_RESIZED_DIMENSIONS = MappingProxyType({"linear": 3, "cubic": 2})
_GRID_RANK = 4


def resize_modes(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Interpolation and coordinates that a version does not have."""
    for node in graph.named("Resize"):
        mode, coordinates = _text(node, "mode", "nearest"), _text(node, "coordinate_transformation_mode", "half_pixel")
        nearest = _text(node, "nearest_mode", "round_prefer_floor")
        if mode == "cubic" and parser.version < _CUBIC:
            yield _refused(node, "before 8.5 has no cubic interpolation", "use linear, or a fixed convolution")
        else:
            yield from _resized(graph, node, mode)
        if coordinates not in _COORDINATES:
            yield _refused(
                node, f"has no coordinate transformation {coordinates}", f"use one of {', '.join(_COORDINATES)}"
            )
        elif coordinates == "tf_half_pixel_for_nn" and nearest != "round_prefer_floor":
            yield _refused(
                node, f"rounds tf_half_pixel_for_nn by round_prefer_floor only, not {nearest}", "use half_pixel"
            )


def resize_scales(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """`scales` has to be an initializer before 8.4, and may not come from a graph input in any version."""
    for node in graph.named("Resize"):
        index = 1 if len(node.input) == 2 else 2
        name = given(node, index)
        if name is None or given(node, 3) is not None:
            continue
        if parser.version < _COMPUTED_SCALES or origin_of(graph, name) == "input":
            yield from must_be_constant(graph, parser, node, index, "scales")


def resize_attributes(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Opset 18's antialias and keep_aspect_ratio_policy: ignored before 10.0, refused since; axes: refused before."""
    checked = parser.version >= _CHECKS_NEW_ATTRIBUTES
    for node in graph.named("Resize"):
        named = []
        if attribute(node, "antialias", 0):
            named.append("antialias")
        if _text(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
            named.append("keep_aspect_ratio_policy")
        for name in named:
            why = f"TensorRT does not have the attribute {name}"
            yield Finding(
                "resize-attribute",
                label(node),
                node.op_type,
                "refused" if checked else "wrong result",
                why if checked else why + ", and before 10.0 ignores it",
                "blur with a fixed convolution first" if name == "antialias" else "compute the sizes beforehand",
            )
        axes, shape = attribute(node, "axes"), graph.view.shape(node.input[0])
        if axes is not None and not checked and (shape is None or list(axes) != list(range(len(shape)))):
            yield _refused(
                node, "before 10.0 does not read axes: it takes one number per dimension", "state all dimensions"
            )


def grid_rank(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """GridSample before 10.15 takes maps of b c h w only."""
    if parser.version >= _GRID_5D or not parser.knows("GridSample"):
        return
    for node in graph.named("GridSample"):
        shape = graph.view.shape(node.input[0])
        if shape is not None and len(shape) != _GRID_RANK:
            yield Finding(
                "grid-sample-rank",
                label(node),
                node.op_type,
                "refused",
                f"TensorRT before 10.15 samples maps of rank {_GRID_RANK} only; this one has rank {len(shape)}",
                "sample slice by slice, or gather and blend by hand",
            )


def _resized(graph: LintGraph, node: onnx.NodeProto, mode: str) -> Iterator[Finding]:
    """Linear and cubic interpolation are over the last dimensions only."""
    most = _RESIZED_DIMENSIONS.get(mode)
    name = given(node, 1 if len(node.input) == 2 else 2)
    scales = None if name is None else graph.view.value(name)
    if most is None or scales is None or scales.size == 0:
        return
    changed = [axis for axis, scale in enumerate(scales.reshape(-1).tolist()) if scale != 1]
    if changed and attribute(node, "axes") is None and scales.size - changed[0] > most:
        yield _refused(
            node,
            f"interpolates ({mode}) over the last {most} dimensions only; this one begins at axis {changed[0]}",
            "resize in steps, with the axes moved to the end",
        )


def _text(node: onnx.NodeProto, name: str, default: str) -> str:
    value = attribute(node, name)
    return default if value is None else str(value.decode("utf-8", "replace"))


def _refused(node: onnx.NodeProto, why: str, remedy: str) -> Finding:
    return Finding("resize-mode", label(node), node.op_type, "refused", f"TensorRT {why}", remedy)
