"""Products and powers of integers, and the operator Attention."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, given, label
from deploy_attn.export.linting.parser import Parser

_INTEGER_EXPONENT = (10, 8)
_INTEGER_BASE = (10, 12)
_ATTENTION = (10, 14)
_ATTENTION_RANK = 4


def integer_products(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """MatMul and Gemm take no integers, in any version."""
    for node in graph.named("MatMul", "Gemm"):
        if any(_is_integer(graph, name) for name in node.input):
            yield Finding(
                "integer-product",
                label(node),
                node.op_type,
                "refused",
                f"TensorRT has no {node.op_type} of integers",
                "cast its inputs to FP32 and the product back",
            )


def integer_powers(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Pow: an integer exponent from 10.8 on, an integer base from 10.12 on."""
    for node in graph.named("Pow"):
        base, exponent = (_is_integer(graph, given(node, index) or "") for index in (0, 1))
        if base and parser.version < _INTEGER_BASE:
            why, remedy = "TensorRT before 10.12 takes no integer base", "cast the base to FP32, or multiply"
        elif exponent and parser.version < _INTEGER_EXPONENT:
            why, remedy = "TensorRT before 10.8 takes no integer exponent", "give the exponent as a float"
        else:
            continue
        yield Finding("integer-power", label(node), node.op_type, "refused", why, remedy)


def attention_rank(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Attention is documented for 4D only."""
    if parser.version < _ATTENTION:
        return
    for node in graph.named("Attention"):
        shape = graph.view.shape(node.input[0])
        if shape is not None and len(shape) != _ATTENTION_RANK:
            yield Finding(
                "attention-rank",
                label(node),
                node.op_type,
                "risky",
                f"TensorRT documents Attention for tensors of rank {_ATTENTION_RANK} (b heads n d); "
                f"this one has rank {len(shape)}",
                "reshape to 4D before it",
            )


def _is_integer(graph: LintGraph, name: str) -> bool:
    import onnx

    return graph.view.elem_type(name) in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
