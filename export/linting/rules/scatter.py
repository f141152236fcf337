"""Scatter* with a reduction, and Gather* with negative indices."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_attn.export.linting.finding import Effect, Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label
from deploy_attn.export.linting.parser import Parser

_READS_REDUCTION = (10, 0)
# The sources of 10.1 and 10.6 refuse the attribute whatever it says; TensorRT-RTX 1.7.1, which was
# built beside 10.15 and later, takes `none`.
_REFUSES_NONE, _TAKES_NONE = (10, 7), (10, 15)
_NATIVE_GATHER = (8, 2)


def scatter_reductions(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Before 10.0 no parser reads `reduction`; from then on only that of ScatterElements counts."""
    for node in graph.named("Scatter", "ScatterElements", "ScatterND"):
        reduction = attribute(node, "reduction")
        if reduction is None or not parser.knows(node.op_type):
            continue
        effect, why = _effect(node.op_type, reduction.decode(), parser)
        if effect is not None:
            remedy = "leave the attribute out" if reduction == b"none" else "reduce with other nodes, or scatter once"
            yield Finding("scatter-reduction", label(node), node.op_type, effect, why, remedy)


def negative_indices(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """TensorRT 8.0 counts indices from the front only."""
    if parser.version >= _NATIVE_GATHER:
        return
    for node in graph.named("Gather", "GatherElements"):
        indices = graph.view.value(given(node, 1) or "")
        if indices is not None and (indices < 0).any():
            yield Finding(
                "gather-negative-index",
                label(node),
                node.op_type,
                "wrong result",
                "TensorRT 8.0 takes indices from 0 up: a negative one reads outside the tensor, not from its end",
                "add the axis's extent to the negative indices",
            )


def _effect(op_type: str, reduction: str, parser: Parser) -> tuple[Effect | None, str]:
    if parser.version < _READS_REDUCTION:
        if reduction == "none":
            return None, ""
        return "wrong result", (
            f"TensorRT before 10.0 does not read reduction = {reduction}: the updates replace what is there, "
            "and where indices repeat one of them wins"
        )
    if op_type != "ScatterND":
        return None, ""
    if reduction != "none":
        return "refused", "TensorRT from 10.0 on has no ScatterND with a reduction"
    if parser.version < _REFUSES_NONE:
        return "refused", "TensorRT 10.0 to 10.6 refuses the attribute reduction of ScatterND, even `none`"
    if parser.version < _TAKES_NONE:
        return "risky", "TensorRT 10.0 to 10.6 refuses the attribute reduction of ScatterND; 10.15 takes `none`"
    return None, ""
