"""Types of the network's inputs and outputs, and UINT8, which is for them only."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, label
from deploy_attn.export.linting.parser import Parser

_PORTS, _CASTS = (8, 5), (8, 6)
# Type of a network's input or output -> the version that has it.
_TYPES = MappingProxyType(
    {
        "BFLOAT16": (9, 0),
        "BOOL": (0, 0),
        "DOUBLE": (0, 0),
        "FLOAT": (0, 0),
        "FLOAT16": (0, 0),
        "FLOAT4E2M1": (10, 8),
        "FLOAT8E4M3FN": (9, 0),
        "INT32": (0, 0),
        "INT4": (10, 0),
        "INT64": (0, 0),
        "INT8": (0, 0),
        "UINT8": _PORTS,
        "UNDEFINED": (0, 0),
    }
)


def port_types(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Inputs and outputs of types that the parser does not have."""
    import onnx

    source = graph.model.graph
    constants = {tensor.name for tensor in source.initializer}
    ports = [("input", value) for value in source.input if value.name not in constants]
    for kind, value in (*ports, *(("output", value) for value in source.output)):
        elem_type = value.type.tensor_type.elem_type
        known = elem_type in onnx.TensorProto.DataType.values()
        name = onnx.TensorProto.DataType.Name(elem_type) if known else str(elem_type)
        since = _TYPES.get(name)
        if since is None or parser.version < since:
            when = "" if since is None else f" before {since[0]}.{since[1]}"
            yield Finding(
                "port-type",
                value.name,
                "",
                "refused",
                f"TensorRT{when} has no network {kind} of type {name}",
                "cast outside the network to FP32, FP16, INT32, INT8 or BOOL",
            )


def uint8_casts(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """TensorRT 8.5 casts UINT8 at the network's edge, 8.6 anywhere; before 8.5 it has none."""
    import onnx

    if not _PORTS <= parser.version < _CASTS:
        return
    inputs = {value.name for value in graph.model.graph.input}
    outputs = {value.name for value in graph.model.graph.output}
    uint8 = onnx.TensorProto.UINT8
    for node in graph.named("Cast"):
        reads = any(graph.view.elem_type(name) == uint8 and name not in inputs for name in node.input)
        makes = attribute(node, "to") == uint8 and not outputs.issuperset(node.output)
        if reads or makes:
            yield Finding(
                "uint8-cast",
                label(node),
                node.op_type,
                "refused",
                "TensorRT 8.5 casts UINT8 at the network's inputs and outputs only",
                "compute in FP32 or INT32 inside the network",
            )
