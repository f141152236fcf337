"""Clip, and an activation that parsers before 8.4 compute wrongly."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, given, label
from deploy_attn.export.linting.origin import origin_of
from deploy_attn.export.linting.parser import Parser
from deploy_attn.export.linting.rules.constants import must_be_constant

_COMPUTED_BOUNDS = (8, 2)
_HALF_BOUNDS = (8, 5)
_RIGHT_CELU = (8, 4)


def clip_bounds(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Bounds that are no constants: not before 8.2; then for FP32 and INT32 only, for FP16 from 8.5 on."""
    import onnx

    taken = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    for node in graph.named("Clip"):
        for index, name in ((1, "min"), (2, "max")):
            bound = given(node, index)
            if bound is None:
                continue
            if parser.version < _COMPUTED_BOUNDS:
                yield from must_be_constant(graph, parser, node, index, name)
                continue
            kind = graph.view.elem_type(node.input[0])
            computed = origin_of(graph, bound) in ("input", "computed")
            if parser.version < _HALF_BOUNDS and computed and kind and kind not in taken:
                yield Finding(
                    "clip-bounds",
                    label(node),
                    node.op_type,
                    "refused",
                    f"TensorRT before 8.5 takes a computed `{name}` for FP32 and INT32 only",
                    "make it an initializer, or use Min and Max",
                )


def celu(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Before 8.4 Celu raises alpha to a power where it should multiply by it."""
    if parser.version >= _RIGHT_CELU:
        return
    for node in graph.named("Celu"):
        yield Finding(
            "celu",
            label(node),
            node.op_type,
            "wrong result",
            "TensorRT before 8.4 computes alpha ^ (exp(x / alpha) - 1) where Celu multiplies (source of 8.4 EA; "
            "8.4's changelog names the repair)",
            "write it as Max(0, x) + Min(0, alpha * (Exp(x / alpha) - 1))",
        )
