"""BOOL where a parser has no layer for it."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Effect, Finding
from deploy_attn.export.linting.graph import LintGraph, label
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

_DATA = (0,)
_MOVES = MappingProxyType(
    {
        "DepthToSpace": _DATA,
        "Gather": _DATA,
        "GatherElements": _DATA,
        "GatherND": _DATA,
        "SpaceToDepth": _DATA,
    }
)
# Their documented types have no BOOL; TensorRT-RTX 1.7.1, built beside 10.15 and later, takes it.
_UNDOCUMENTED = MappingProxyType({"Pad": _DATA, "Scatter": (0, 2), "ScatterElements": (0, 2), "ScatterND": (0, 2)})
_TAKES_UNDOCUMENTED = (10, 15)
_COMPARES = (8, 4)
_WHERE_UNKNOWN, _WHERE_TAKES = (8, 4), (8, 6)
_ARITHMETIC = (
    *("Add", "Div", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mul", "Pow", "Sub", "Sum"),
    *("ReduceMax", "ReduceMin"),
)
_LOGIC = ("And", "Not", "Or", "Xor")
_CAST = "cast BOOL to FP32 or INT32 before, and back after"


def boolean_data(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Nodes that move BOOL, and choose between BOOL."""
    for op_type, indices in (*_MOVES.items(), *_UNDOCUMENTED.items()):
        if not parser.knows(op_type) or "BOOL" in parser.types(op_type):
            continue
        certain = op_type in _MOVES
        if not certain and parser.version >= _TAKES_UNDOCUMENTED:
            continue
        for node in graph.named(op_type):
            if _reads_bool(graph, node, indices):
                yield _finding(parser, node, "refused" if certain else "risky", f"documents no {op_type} of BOOL")
    for node in graph.named("Where"):
        if parser.version < _WHERE_TAKES and _reads_bool(graph, node, (1, 2)):
            certain = parser.version < _WHERE_UNKNOWN
            yield _finding(parser, node, "refused" if certain else "risky", "has no Where between BOOL values")


def boolean_operands(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Arithmetic and comparisons of BOOL, logic of anything else."""
    import onnx

    for node in graph.named("Equal", *_ARITHMETIC):
        if node.op_type == "Equal" and parser.version >= _COMPARES:
            continue
        if _reads_bool(graph, node, range(len(node.input))):
            yield _finding(parser, node, "refused", f"has no {node.op_type} of BOOL")
    known = (onnx.TensorProto.BOOL, onnx.TensorProto.UNDEFINED)
    for node in graph.named(*_LOGIC):
        if any(graph.view.elem_type(name) not in known for name in node.input):
            why = f"TensorRT takes {node.op_type} of BOOL only"
            yield Finding("bool-operand", label(node), node.op_type, "refused", why, "compare with 0, or cast to BOOL")


def _reads_bool(graph: LintGraph, node: onnx.NodeProto, indices: tuple[int, ...] | range) -> bool:
    import onnx

    names = [node.input[index] for index in indices if index < len(node.input)]
    return any(graph.view.elem_type(name) == onnx.TensorProto.BOOL for name in names)


def _finding(parser: Parser, node: onnx.NodeProto, effect: Effect, why: str) -> Finding:
    version = f"TensorRT {parser.version[0]}.{parser.version[1]}"
    return Finding("bool-operand", label(node), node.op_type, effect, f"{version} {why}", _CAST)
