"""A precision plan held against measurement: what decides a gate goes back to FP32 until the graph holds.

A softmax or a sigmoid turns an absolute error of its argument into a relative
one of its result. An argument of 1000 that was rounded to FP16 anywhere on its
way is half a unit off, which no range shows: nothing overflows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.rounding import rounded_from_typed
from deploy_attn.engines.tolerance import NETWORK_TOLERANCES, TOLERANCES, Tolerance
from deploy_attn.export.graph_view import GraphView
from deploy_attn.export.precision import MOVES, PrecisionPlan, plan_from_graph
from deploy_attn.export.ranges import tensor_ranges
from deploy_attn.export.typed import typed_from_plan
from deploy_attn.jetson.metrics import Comparison, compare

if TYPE_CHECKING:
    import onnx

    from deploy_attn.jetson.artifact import Case

Step = Callable[[PrecisionPlan], PrecisionPlan]
Comparisons = dict[str, dict[str, Comparison]]  # by case and output


class Aim(NamedTuple):
    """How near a plan should bring its graph.

    Attributes:
        as_it_runs: as an engine runs it.
        rounded: with a rounding at every FP16 node.
        margin: inputs that were not measured may be rounded this much worse.
        leading: which parts of the nodes, from the input on, may go back to FP32, as 8 for an eighth.
    """

    as_it_runs: Tolerance
    rounded: Tolerance
    margin: float
    leading: tuple[int, ...] = ()


MODULE = Aim(TOLERANCES["fp16"], TOLERANCES["fp16-rounded"]._replace(rms_relative=5e-3), 2.0)
NETWORK = Aim(NETWORK_TOLERANCES["fp16"], NETWORK_TOLERANCES["fp16-rounded"], 1.25, (8, 4, 2))
_REACHES = (1, 2, 3)  # matrix products and convolutions back from the gate
_SATURATING = frozenset(("HardSigmoid", "LogSoftmax", "Sigmoid", "Softmax", "Tanh"))
_HARMLESS_ARGUMENT = 8.0  # rounded to FP16, an argument up to here is at most 0.004 off
_ROUNDING_POINTS = frozenset(("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"))


def plan_for(model: onnx.ModelProto, cases: Sequence[Case], aim: Aim = MODULE) -> PrecisionPlan:
    """The plan that an export makes: from meaning and measured ranges, then refined."""
    ranges = tensor_ranges(model, [case.inputs for case in cases])
    return refined_plan(model, plan_from_graph(model, ranges), cases, aim)


def refined_plan(
    model: onnx.ModelProto, plan: PrecisionPlan, cases: Sequence[Case], aim: Aim = MODULE
) -> PrecisionPlan:
    """The plan, with more nodes in FP32 where that is what brings its graph near enough to the reference.

    Within what is aimed at, less its margin, with a rounding at every FP16 node,
    and the tolerance that it is verified with as the engine runs it. Widened step
    by step, from each gate's argument back over one, two and three matrix
    products, and in a network then from its input on; a step is taken if
    the graph then holds, or if it at least halves the excess.
    """
    excess = _excess(model, plan, cases, aim)
    view = GraphView(model)
    for widened in (*(_gates(view, model.graph, reach) for reach in _REACHES), *map(_leading, aim.leading)):
        if excess <= 1:
            break
        candidate = widened(plan)
        if candidate == plan:
            continue
        found = _excess(model, candidate, cases, aim)
        if found <= 1 or found < excess / 2:
            plan, excess = candidate, found
    return plan


def rounded_comparisons(model: onnx.ModelProto, plan: PrecisionPlan, cases: Sequence[Case]) -> Comparisons:
    """How far a plan's graph is from the reference with a rounding at every FP16 node, by case and output."""
    return comparisons(rounded_from_typed(typed_from_plan(model, plan)), cases)


def comparisons(model: onnx.ModelProto, cases: Sequence[Case]) -> Comparisons:
    """How far a graph is from the reference, by case and output."""
    found = {}
    with OnnxRuntimeRunner(model.SerializeToString()) as run:
        for case in cases:
            outputs = run.infer(case.inputs)
            found[case.name] = {name: compare(outputs[name], wanted) for name, wanted in case.outputs.items()}
    return found


def _excess(model: onnx.ModelProto, plan: PrecisionPlan, cases: Sequence[Case], aim: Aim) -> float:
    """The largest error over what its bracket should keep to; infinite if anything is not finite."""
    typed = typed_from_plan(model, plan)
    rounded = aim.rounded._replace(rms_relative=aim.rounded.rms_relative / aim.margin)
    as_it_runs = _largest(comparisons(typed, cases), aim.as_it_runs)
    return max(as_it_runs, _largest(comparisons(rounded_from_typed(typed), cases), rounded))


def _largest(found: Comparisons, allowed: Tolerance) -> float:
    return max(_over(comparison, allowed) for outputs in found.values() for comparison in outputs.values())


def _over(found: Comparison, allowed: Tolerance) -> float:
    if found.non_finite:
        return float("inf")
    return max(found.rms_relative / allowed.rms_relative, found.worst_relative / allowed.worst_relative)


def _gates(view: GraphView, graph: onnx.GraphProto, reach: int) -> Step:
    """What decides the gates of a graph, back to the reach-th product, goes to FP32."""

    def widened(plan: PrecisionPlan) -> PrecisionPlan:
        reasons: dict[str, str] = {}
        for node in graph.node:
            argument = plan.ranges.get(node.input[0], 0.0) if node.op_type in _SATURATING else 0.0
            if argument > _HARMLESS_ARGUMENT:
                reason = f"decides {node.name}, whose argument reaches {argument:.3g}: rounded, it moved the output"
                reasons.update(dict.fromkeys(_deciding(view, node, reach), reason))
        return _in_fp32(plan, reasons)

    return widened


def _leading(part: int) -> Step:
    """The first nodes go to FP32: what is rounded there, every layer after it carries on and amplifies."""

    def widened(plan: PrecisionPlan) -> PrecisionPlan:
        first = plan.nodes[: -(-len(plan.nodes) // part)]
        reason = f"among the first {len(first)} of {len(plan.nodes)} nodes: rounded there, it moved the output most"
        return _in_fp32(plan, {node.node: reason for node in first})

    return widened


def _in_fp32(plan: PrecisionPlan, reasons: Mapping[str, str]) -> PrecisionPlan:
    """The plan with these nodes in FP32; those that are there already keep their own reason."""
    nodes = [
        replace(node, precision="fp32", reason=reasons[node.node])
        if node.precision == "fp16" and node.node in reasons
        else node
        for node in plan.nodes
    ]
    return replace(plan, nodes=tuple(nodes))


def _deciding(view: GraphView, gate: onnx.NodeProto, reach: int) -> set[str]:
    """The gate and the nodes that its argument comes from, back to the reach-th product on every way."""
    steps = {gate.name: reach}
    waiting = [gate]
    while waiting:
        node = waiting.pop()
        left = steps[node.name] - (node.op_type in _ROUNDING_POINTS)
        for maker in view.makers(node):
            # What the last product reads is moved to it unrounded.
            within = left if left > 0 or maker.op_type in MOVES else -1
            if maker.op_type not in _SATURATING and steps.get(maker.name, -1) < within:
                steps[maker.name] = within
                waiting.append(maker)
    return set(steps)
