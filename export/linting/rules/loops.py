"""If, Loop, and the recurrent layers that a parser makes loops of."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label
from deploy_attn.export.linting.origin import origin_of
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

# How many activations a direction has; the defaults are the same for both directions.
_ACTIVATIONS = MappingProxyType({"GRU": 2, "LSTM": 3, "RNN": 1})
_LAYOUT_CHECKED, _LAYOUT_UNCHECKED = (10, 1), (10, 15)
_LOOP_CHECKED = (10, 1)


def recurrent_layers(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Both directions need the same activations; LSTM has no coupled gates, and a layout of 0."""
    for node in graph.named(*_ACTIVATIONS):
        activations = [name.decode() for name in attribute(node, "activations", [])]
        count = _ACTIVATIONS[node.op_type]
        both = attribute(node, "direction", b"forward") == b"bidirectional"
        settings = [activations, attribute(node, "activation_alpha", []), attribute(node, "activation_beta", [])]
        if both and any(list(values[:count]) != list(values[count:]) for values in settings if values):
            yield _refused(node, "runs both directions with the same activations only", "run the directions apart")
        if node.op_type == "LSTM" and attribute(node, "input_forget", 0):
            yield _refused(node, "has no LSTM with coupled input and forget gates", "uncouple them: f = 1 - i")
        if attribute(node, "layout", 0):
            checked = node.op_type == "LSTM" and _LAYOUT_CHECKED <= parser.version < _LAYOUT_UNCHECKED
            yield Finding(
                "recurrent-layer",
                label(node),
                node.op_type,
                "refused" if checked else "wrong result",
                "TensorRT does not read layout = 1: it takes the batch for time",
                "transpose the input to time first and leave layout out",
            )


def branches(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """The outputs of an If's branches need different names, one count and one rank."""
    for node in graph.named("If"):
        ways = [attribute(node, name) for name in ("then_branch", "else_branch")]
        if None in ways:
            continue
        names = [[value.name for value in way.output] for way in ways]
        if len(names[0]) != len(names[1]):
            yield _refused(node, "needs as many outputs of one branch as of the other", "give both the same outputs")
        shared = ", ".join(sorted(set(names[0]) & set(names[1])))
        if shared:
            yield _refused(
                node,
                f"needs different names for the branches' outputs; both have {shared}",
                "rename the outputs of one branch",
            )
        if any(None not in pair and pair[0] != pair[1] for pair in zip(_ranks(ways[0]), _ranks(ways[1]))):
            yield _refused(node, "needs branches whose outputs have the same rank", "reshape in one branch")


def loop_outputs(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """What a Loop stacks, iteration by iteration, needs a length that is known."""
    if parser.version < _LOOP_CHECKED:
        return
    for node in graph.named("Loop"):
        carried, trips = len(node.input) - 2, given(node, 0)
        known = trips is not None and origin_of(graph, trips) in ("constant", "unknown")
        stacked = any(node.output[max(carried, 0) :])
        if stacked and (not known or given(node, 1) is not None):
            yield Finding(
                "loop-output",
                label(node),
                node.op_type,
                "risky" if known else "refused",
                "TensorRT needs to know the length of what a Loop stacks; here "
                + ("a condition may end it early" if known else "its trip count is computed"),
                "give the trip count as an initializer and let the loop run to its end",
            )


def _ranks(graph: onnx.GraphProto) -> list[int | None]:
    return [
        len(value.type.tensor_type.shape.dim) if value.type.tensor_type.HasField("shape") else None
        for value in graph.output
    ]


def _refused(node: onnx.NodeProto, why: str, remedy: str) -> Finding:
    rule = "if-branches" if node.op_type == "If" else "recurrent-layer"
    return Finding(rule, label(node), node.op_type, "refused", f"TensorRT {why}", remedy)
