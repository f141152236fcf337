"""Types of tensors that TensorRT lacks, lowers, or does not compute an operator in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Effect, Finding
from deploy_attn.export.linting.graph import ONNX_DOMAINS, LintGraph, label
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

# TensorProto.DataType -> its name in the tables. INT64 and BOOL have rules of their own.
_ALWAYS = frozenset((0, 1, 6, 7, 9, 10))  # undefined, FLOAT, INT32, INT64, BOOL, FLOAT16
_DOUBLE, _UINT8 = 11, 2
_TABLE_NAMES: Mapping[int, str] = MappingProxyType({3: "INT8", 16: "BF16", 17: "FP8", 22: "INT4", 23: "FP4"})
_SINCE: Mapping[int, tuple[int, int]] = MappingProxyType(
    {3: (0, 0), 2: (8, 5), 16: (9, 0), 17: (9, 0), 22: (10, 0), 23: (10, 8)}
)
# INT8 and smaller live between these; what passes them on in between is the builder's to fuse.
_QUANTIZERS = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"))
_QUANTIZED = frozenset((3, 17, 22, 23))
_CASTS = frozenset(("Cast", "CastLike"))


def types(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Nodes with a tensor of a type that this version, or this version's importer, does not compute in."""
    odd = {name: kind for name, kind in graph.view.elem_types.items() if kind not in _ALWAYS}
    for port in (*graph.model.graph.input, *graph.model.graph.output) if odd else ():
        if odd.get(port.name, _DOUBLE) != _DOUBLE and _is_lacking(odd[port.name], parser):
            del odd[port.name]  # the rule about ports has it
    for node in graph.nodes if odd else ():
        if node.domain not in ONNX_DOMAINS or not parser.knows(node.op_type):
            continue
        made = node.output if node.op_type not in _CASTS else ()  # what a Cast makes has a rule of its own
        kinds = {odd[name]: name for name in (*node.input, *made) if name in odd}
        for kind in sorted(kinds):
            yield from _finding(graph, parser, node, kinds[kind], kind)


def _finding(graph: LintGraph, parser: Parser, node: onnx.NodeProto, tensor: str, kind: int) -> Iterator[Finding]:
    import onnx

    name = onnx.TensorProto.DataType.Name(kind)
    if kind == _DOUBLE:
        effect: Effect = "risky"
        why = f"{tensor!r} is DOUBLE: TensorRT computes it in FP32, and clamps what FP32 does not hold"
        remedy = "export the network in float32"
    elif _is_lacking(kind, parser):
        since = f" before {'.'.join(map(str, _SINCE[kind]))}" if kind in _SINCE else ""
        effect, why = "refused", f"{tensor!r} is {name}, a type that TensorRT{since} does not have"
        remedy = "compute in FP32, FP16 or INT32; cast outside the engine"
    elif kind == _UINT8:
        if node.op_type in _CASTS or node.op_type in _QUANTIZERS:
            return
        effect, why = "refused", f"{tensor!r} is UINT8, which TensorRT has for inputs and outputs of the network only"
        remedy = "Cast it to FP32 or FP16 first"
    elif kind in _QUANTIZED and _is_quantized(graph, node):
        return
    else:
        documented = parser.types(node.op_type)
        if not documented or _TABLE_NAMES[kind] in documented:
            return
        effect = "refused"
        why = f"{tensor!r} is {name}; TensorRT documents {node.op_type} for {', '.join(documented)}"
        remedy = f"Cast to {documented[0]} around it"
    yield Finding("type", label(node), node.op_type, effect, why, remedy)


def _is_lacking(kind: int, parser: Parser) -> bool:
    return kind not in _SINCE or parser.version < _SINCE[kind]


def _is_quantized(graph: LintGraph, node: onnx.NodeProto) -> bool:
    """Whether a node quantises, or stands beside one that does."""
    near = [node, *graph.view.users(node), *filter(None, map(graph.view.maker, node.input))]
    return any(item.op_type in _QUANTIZERS for item in near)
