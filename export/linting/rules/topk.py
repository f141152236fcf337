"""TopK, and ArgMax and ArgMin, which a parser makes a TopK of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Effect, Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label
from deploy_attn.export.linting.parser import Parser
from deploy_attn.export.linting.rules.constants import must_be_constant

if TYPE_CHECKING:
    import onnx

_READS_LARGEST = (8, 5)
_COMPUTED_K = (8, 6)
_TAKES_INTEGERS = (8, 6)
_NATIVE_ARG_INTEGERS = (9, 3)
_OPEN_ARG_SHAPES = (8, 4)
_SORTED_ONLY = (10, 1)
# TensorRT-RTX 1.7.1 refuses 4000 and says that 3840 is allowed; operators.md of 10.1 asks for less than that.
_LARGEST_K = 3840


def smallest(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """TensorRT before 8.5 always takes the largest."""
    if parser.version >= _READS_LARGEST:
        return
    for node in graph.named("TopK"):
        if not attribute(node, "largest", 1):
            yield _finding(
                "topk-smallest",
                node,
                "wrong result",
                "TensorRT before 8.5 does not read largest = 0: it gives the K largest instead of the K smallest",
                "negate the input, take the largest, negate the values; --fix does that for floats",
            )


def topk_limits(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """How K may be given, how large it may be, and the order of what comes out."""
    for node in graph.named("TopK"):
        if parser.version < _COMPUTED_K:
            yield from must_be_constant(graph, parser, node, 1, "K")
        count = _count(graph, node)
        if count is not None and count > _LARGEST_K:
            yield _finding("topk-k", node, "refused", f"TensorRT takes K up to {_LARGEST_K}", "take a smaller K")
        elif count == _LARGEST_K and parser.version >= _SORTED_ONLY:
            yield _finding(
                "topk-k", node, "risky", f"TensorRT from 10.1 on documents K below {_LARGEST_K}", "take a smaller K"
            )
        if not attribute(node, "sorted", 1) and parser.version >= _SORTED_ONLY:
            yield _finding(
                "topk-sorted",
                node,
                "risky",
                "TensorRT from 10.1 on documents sorted = 1 only",
                "leave sorted out: sorted values are a valid answer to sorted = 0",
            )


def integer_data(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Integers came with 8.6, and for ArgMax and ArgMin by way of FP32 until 9.3."""
    import onnx

    integers = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    for node in graph.named("TopK", "ArgMax", "ArgMin"):
        if graph.view.elem_type(given(node, 0) or "") not in integers:
            continue
        if parser.version < _TAKES_INTEGERS:
            yield _finding(
                "topk-integers",
                node,
                "refused",
                f"TensorRT before 8.6 has no {node.op_type} of integers",
                "cast the input to FP32, which is exact up to 2^24",
            )
        elif parser.version < _NATIVE_ARG_INTEGERS and node.op_type != "TopK":
            yield _finding(
                "topk-integers",
                node,
                "risky",
                f"TensorRT before 9.3 runs {node.op_type} of integers in FP32: those beyond 2^24 may tie",
                "keep the integers below 2^24",
            )


def open_arguments(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """ArgMax and ArgMin of open shapes came with 8.4."""
    if parser.version >= _OPEN_ARG_SHAPES:
        return
    for node in graph.named("ArgMax", "ArgMin"):
        if None in (graph.view.shape(given(node, 0) or "") or ()):
            yield _finding(
                "argmax-open-shape",
                node,
                "refused",
                f"TensorRT takes {node.op_type} of an open shape from 8.4 on",
                "export with a static shape",
            )


def _count(graph: LintGraph, node: onnx.NodeProto) -> int | None:
    """K, where it is known."""
    name = given(node, 1)
    value = None if name is None else graph.view.value(name)
    if value is not None and value.size == 1:
        return int(value.ravel()[0])
    known: int | None = attribute(node, "k")
    return known


def _finding(rule: str, node: onnx.NodeProto, effect: Effect, why: str, remedy: str) -> Finding:
    return Finding(rule, label(node), node.op_type, effect, why, remedy)
