"""Types: what a Cast may make, and FP16 graphs for parsers that keep their weights in FP32."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, label
from deploy_attn.export.linting.parser import Parser

_NATIVE_HALF = (8, 4)
# Type -> the version from which a Cast may make it; INT64 becomes INT32 and DOUBLE becomes FP32 before 9.0.
_TYPES = MappingProxyType(
    {
        "FLOAT": (0, 0),
        "FLOAT16": (0, 0),
        "DOUBLE": (0, 0),
        "INT8": (0, 0),
        "INT32": (0, 0),
        "INT64": (0, 0),
        "BOOL": (0, 0),
        "UINT8": (8, 5),
        "BFLOAT16": (9, 0),
        "FLOAT8E4M3FN": (9, 0),
        "INT4": (10, 0),
        "FLOAT4E2M1": (10, 8),
    }
)


def cast_types(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Cast to a type that the parser does not have."""
    import onnx

    for node in graph.named("Cast"):
        to = attribute(node, "to", onnx.TensorProto.FLOAT)
        name = onnx.TensorProto.DataType.Name(to) if to in onnx.TensorProto.DataType.values() else str(to)
        since = _TYPES.get(name)
        if since is None or parser.version < since:
            when = "" if since is None else f" before {since[0]}.{since[1]}"
            yield Finding(
                "cast-type",
                label(node),
                node.op_type,
                "refused",
                f"TensorRT{when} does not cast to {name}",
                "cast to FP32, FP16, INT32, INT8 or BOOL, or do it outside the engine",
            )


def half_weights(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """A typed FP16 graph before 8.4, unless its plan is at hand: such a version is given the plan instead."""
    import onnx

    if parser.version >= _NATIVE_HALF or graph.half_planned is not None:
        return
    half = onnx.TensorProto.FLOAT16
    count = sum(tensor.data_type == half for tensor in graph.model.graph.initializer)
    casts = sum(attribute(node, "to") == half for node in graph.named("Cast"))
    if count or casts:
        yield Finding(
            "typed-half-graph",
            "",
            "",
            "risky",
            f"TensorRT before 8.4 has no native FP16 weights ({count} here) and makes Casts ({casts} here to FP16) "
            "Identity layers that it may fuse away: what runs in FP16 is not what the file says",
            "build from the FP32 graph and its precision plan, which sets each layer's precision",
        )
