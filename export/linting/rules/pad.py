"""Pad: axes, modes, amounts and values that a parser does not read as ONNX means them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from deploy_attn.export.linting.finding import Effect, Finding
from deploy_attn.export.linting.folding import known_value
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label
from deploy_attn.export.linting.origin import origin_of
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import numpy as np
    import onnx

_AS_INPUTS_OPSET = 11
_ANY_DIMENSIONS = (8, 2)  # 8.0 pads two dimensions, with constant zeros
_TYPED_VALUE = (8, 4)
_REFUSES_AXES = (8, 6)
_READS_AXES = (10, 0)
_COMPUTED_AXES = (10, 4)
_WRAPS = (10, 0)
# Negative amounts: refused in the sources of 8.2 to 10.6, taken by TensorRT-RTX 1.7.1.
_REFUSES_CROPS = (10, 7)
_PLANE = 2


def pad_axes(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Pads for some axes only, the form of opset 18."""
    for node in graph.named("Pad"):
        axes = given(node, 3)
        if axes is None or parser.version >= _COMPUTED_AXES:
            continue
        if parser.version >= _READS_AXES:
            if origin_of(graph, axes) in ("input", "computed"):
                why = "TensorRT before 10.4 takes the axes of Pad as an initializer only"
                yield _finding("pad-axes", node, "refused", why, "make axes an initializer")
        elif parser.version >= _REFUSES_AXES:
            why = "TensorRT from 8.6 on and before 10.0 refuses the axes of Pad"
            yield _finding("pad-axes", node, "refused", why, "give pads for every axis, zeros for those not padded")
        elif not _is_every_axis(graph, node, axes):
            yield _finding(
                "pad-axes",
                node,
                "wrong result",
                "TensorRT before 8.6 ignores the axes of Pad: it takes the pads for the last axes, whichever are "
                "named, and does not read a constant_value beside them",
                "give pads for every axis, zeros for those not padded",
            )


def pad_modes(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """`wrap` came with 10.0; 8.0 has zeros over two dimensions and nothing else."""
    for node in graph.named("Pad"):
        mode, pads = attribute(node, "mode", b"constant").decode(), _pads(graph, node)
        if pads is not None and not pads.any():
            continue
        if mode == "wrap" and parser.version < _WRAPS:
            remedy = "concatenate the slices that wrap around"
            yield _finding("pad-mode", node, "refused", "TensorRT pads by wrapping around from 10.0 on", remedy)
        elif parser.version < _ANY_DIMENSIONS:
            yield from _plain_pad(graph, node, mode, pads)


def pad_amounts(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """A negative pad crops."""
    if not _ANY_DIMENSIONS <= parser.version < _REFUSES_CROPS:
        return
    for node in graph.named("Pad"):
        pads = _pads(graph, node)
        if pads is None and graph.opset >= _AS_INPUTS_OPSET:
            pads = known_value(graph, given(node, 1) or "")
        if pads is not None and (pads < 0).any():
            yield _finding("pad-negative", node, "refused", "TensorRT refuses negative pads", "crop with Slice")


def pad_values(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """TensorRT 8.2 reads the bits of any constant_value as FP32."""
    import onnx

    if not _ANY_DIMENSIONS <= parser.version < _TYPED_VALUE:
        return
    for node in graph.named("Pad"):
        value, name = _fill(graph, node), given(node, 2)
        is_float = name is None or graph.view.elem_type(name) == onnx.TensorProto.FLOAT
        if value is not None and value.any() and not is_float:
            yield _finding(
                "pad-value-type",
                node,
                "wrong result",
                "TensorRT before 8.4 reads the bits of constant_value as an FP32 number: of integers it makes 0",
                "pad in FP32, or concatenate a constant",
            )


def _plain_pad(
    graph: LintGraph, node: onnx.NodeProto, mode: str, pads: np.ndarray[Any, Any] | None
) -> Iterator[Finding]:
    """What TensorRT 8.0 cannot do."""
    fill = _fill(graph, node)
    if mode != "constant":
        why = f"TensorRT 8.0 pads with constants only, not by {mode}"
    elif fill is None or fill.any():
        why = "TensorRT 8.0 pads with zeros only"
    elif pads is None:
        why = "TensorRT 8.0 takes the pads as an initializer only"
    elif (pads.reshape(2, -1) != 0).any(axis=0).sum() > _PLANE:
        why = "TensorRT 8.0 pads two dimensions at once"
    else:
        return
    yield _finding("pad-mode", node, "refused", why, "build with TensorRT 8.2 (JetPack 4.6.1), or concatenate zeros")


def _pads(graph: LintGraph, node: onnx.NodeProto) -> np.ndarray[Any, Any] | None:
    """The amounts; None where they are not known."""
    import numpy as np

    if graph.opset < _AS_INPUTS_OPSET:
        value: np.ndarray[Any, Any] | None = np.asarray(attribute(node, "pads", []))
    else:
        value = graph.view.value(given(node, 1) or "")
    return value if value is not None and value.size % 2 == 0 else None


def _fill(graph: LintGraph, node: onnx.NodeProto) -> np.ndarray[Any, Any] | None:
    """What is filled in; None where it is not known."""
    import numpy as np

    if graph.opset < _AS_INPUTS_OPSET:
        return np.asarray(attribute(node, "value", 0.0))
    name = given(node, 2)
    return np.zeros(()) if name is None else graph.view.value(name)


def _is_every_axis(graph: LintGraph, node: onnx.NodeProto, axes: str) -> bool:
    """Whether the axes are all of them in order, so that ignoring them changes nothing."""
    shape, value, fill = graph.view.shape(given(node, 0) or ""), graph.view.value(axes), _fill(graph, node)
    if not shape or value is None or fill is None or fill.any():
        return False
    return [int(axis) % len(shape) for axis in value.ravel()] == list(range(len(shape)))


def _finding(rule: str, node: onnx.NodeProto, effect: Effect, why: str, remedy: str) -> Finding:
    return Finding(rule, label(node), node.op_type, effect, why, remedy)
