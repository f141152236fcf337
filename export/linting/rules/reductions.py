"""Reduce* and CumSum: axes that a parser does not read, and running sums that it makes a loop of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Effect, Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

_READS_INPUT = (10, 0)
# ReduceLogSumExp hands the exponentials to ReduceLogSum and leaves the axes behind: so in the sources
# of 8.0 to 10.6, not in the parser of TensorRT-RTX 1.7.1, which was built beside 10.15 and later.
_LOG_SUM_EXP_DROPS, _LOG_SUM_EXP_READS = (10, 7), (10, 15)
_FAST_RUNNING_SUM = (10, 8)
# ReduceSum took axes as an input from opset 13 on, and every parser reads that.
_BY_ATTRIBUTE = (
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)
_REDUCTIONS = (*_BY_ATTRIBUTE, "ReduceLogSum", "ReduceLogSumExp", "ReduceSum")
_GIVE_ATTRIBUTE = "give axes as an attribute, as opset 13 to 17 has it; --fix does that where they are constant"


def axes_as_input(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """TensorRT before 10.0 reads the attribute only, and without it reduces over every axis."""
    for node in graph.named(*_BY_ATTRIBUTE, "ReduceLogSum", "ReduceLogSumExp"):
        axes = given(node, 1)
        if axes is None or attribute(node, "axes") is not None or _reduces_all(graph, node, axes):
            continue
        misread = _misreading(node.op_type, parser)
        if misread is not None:
            effect, why = misread
            yield Finding("reduce-axes-input", label(node), node.op_type, effect, why, _GIVE_ATTRIBUTE)


def axes_left_out(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """`noop_with_empty_axes` asks for no reduction where there are no axes; 8.x reduces over all."""
    if parser.version >= _READS_INPUT:
        return
    for node in graph.named(*_REDUCTIONS):
        axes = given(node, 1)
        value = None if axes is None else graph.view.value(axes)
        empty = axes is None or (value is not None and value.size == 0)
        if attribute(node, "noop_with_empty_axes", 0) and empty and not attribute(node, "axes"):
            yield Finding(
                "reduce-noop",
                label(node),
                node.op_type,
                "wrong result",
                "TensorRT before 10.0 does not read noop_with_empty_axes: it reduces over every axis "
                "where the input should pass unchanged",
                "leave the node out",
            )


def running_sums(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """CumSum is a loop, one step an element along its axis."""
    if parser.version >= _FAST_RUNNING_SUM:
        return
    for node in graph.named("CumSum"):
        yield Finding(
            "cumsum-loop",
            label(node),
            node.op_type,
            "slow",
            "TensorRT before 10.8 makes CumSum a loop of one step an element along its axis",
            "write MatMul with a constant triangle of ones where the axis is short",
        )


def _misreading(op_type: str, parser: Parser) -> tuple[Effect, str] | None:
    """What happens to axes as an input; None where they are read."""
    version = f"TensorRT {parser.version[0]}.{parser.version[1]}"
    ignores = f"{version} reads axes as an attribute only: it ignores this input and reduces over every axis"
    if op_type == "ReduceLogSum":
        if parser.version >= _READS_INPUT:
            return None
        return "risky", (
            f"the sources of TensorRT 8.0 to 8.5 read this input, as for ReduceSum; {version} documents opsets "
            "in which axes are an attribute"
        )
    if op_type == "ReduceLogSumExp" and parser.version >= _READS_INPUT:
        if parser.version < _LOG_SUM_EXP_DROPS:
            return "wrong result", (
                f"{version} loses the axes between the Exp and the Sum that it makes of this node, "
                "and reduces over every axis"
            )
        if parser.version < _LOG_SUM_EXP_READS:
            return "risky", "TensorRT up to 10.6 loses these axes and reduces over every axis; 10.15 reads them"
        return None
    return ("wrong result", ignores) if parser.version < _READS_INPUT else None


def _reduces_all(graph: LintGraph, node: onnx.NodeProto, axes: str) -> bool:
    """Whether reducing every axis gives the same: none is left out but those of one element that are kept."""
    shape, value = graph.view.shape(given(node, 0) or ""), graph.view.value(axes)
    if value is not None and value.size == 0:
        return not attribute(node, "noop_with_empty_axes", 0)
    if not shape or value is None:
        return False
    named = {int(axis) % len(shape) for axis in value.ravel()}
    left = [extent for axis, extent in enumerate(shape) if axis not in named]
    return not left or (bool(attribute(node, "keepdims", 1)) and all(extent == 1 for extent in left))
