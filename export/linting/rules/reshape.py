"""Reshape's `allowzero`, and Shape of some axes only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

_ALLOWZERO_OPSET = 14
_HAS_DEFAULT = (8, 4)
_MENDED = (8, 5)
# Shape's importer in 8.6 passes start and end by, in 10.1 it reads them; those between were not read.
_NOT_SLICED, _SLICED = (9, 0), (10, 1)


def allowzero(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """At opset 14 and above TensorRT 8.0 and 8.2 ask for the attribute, which ONNX leaves out as 0."""
    if graph.opset < _ALLOWZERO_OPSET or parser.version >= _MENDED:
        return
    for node in graph.named("Reshape"):
        given = attribute(node, "allowzero")
        if given is None and parser.version < _HAS_DEFAULT:
            yield Finding(
                "reshape-allowzero",
                label(node),
                node.op_type,
                "refused",
                "TensorRT before 8.4 reads allowzero from opset 14 on without a default: the parser throws "
                "`Attribute not found: allowzero` where it is left out",
                "write the model at opset 13, as --fix does, or state allowzero = 0 on the node",
            )
        elif given and parser.version >= _HAS_DEFAULT and _asks_for_zero(graph, node):
            yield Finding(
                "reshape-allowzero",
                label(node),
                node.op_type,
                "risky",
                "TensorRT 8.4.2 mends how allowzero = 1 is read; 8.4.0 and 8.4.1 may copy the input's extent instead",
                "state the shape without 0",
            )


def shape_of_some_axes(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Shape with `start` and `end`, the form of opset 15."""
    if parser.version >= _SLICED:
        return
    for node in graph.named("Shape"):
        if _is_sliced(graph, node):
            known = parser.version < _NOT_SLICED
            yield Finding(
                "shape-start-end",
                label(node),
                node.op_type,
                "wrong result" if known else "risky",
                "TensorRT up to 8.6 does not read start and end of Shape: it gives the extents of every axis"
                + ("" if known else "; 10.1 reads them, the versions between were not checked"),
                "take the whole Shape and Slice or Gather it; --fix does that",
            )


def _is_sliced(graph: LintGraph, node: onnx.NodeProto) -> bool:
    start, end = attribute(node, "start", 0), attribute(node, "end")
    shape = graph.view.shape(given(node, 0) or "")
    if shape is None:
        return start != 0 or end is not None
    return len(range(len(shape))[slice(start, end)]) != len(shape)


def _asks_for_zero(graph: LintGraph, node: onnx.NodeProto) -> bool:
    value = graph.view.value(given(node, 1) or "")
    return value is None or bool((value == 0).any())
