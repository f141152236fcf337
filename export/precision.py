"""The FP16 plan: which nodes may run in half precision, which may not, and why.

Meaning comes first (squares, reductions over H x W, norms, softmax logits),
measured ranges second: parity inputs cannot show every overflow, and a sum that
grows with the resolution is unsafe however small it was when it was measured.
Overflow of FP16 begins above 65504.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.export.graph_view import GraphView
from deploy_attn.jetson.metrics import finite_or_none

if TYPE_CHECKING:
    import onnx

FP16_LARGEST = 65504.0
FP16_SMALLEST_NORMAL = 2.0**-14
HEADROOM = 4.0  # measured magnitudes may grow by this factor before they overflow
_WIDE_REDUCTION = 16  # elements; below it, a reduction rounds no worse than a small convolution

_SUMS = frozenset(("ReduceSum", "ReduceMean", "GlobalAveragePool", "AveragePool", "ReduceL1", "ReduceProd"))
_NORMS = frozenset(
    (
        "BatchNormalization",
        "GlobalLpPool",
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LpNormalization",
        "LpPool",
        "MeanVarianceNormalization",
        "ReduceL2",
        "ReduceSumSquare",
    )
)
_EXPONENTIALS = frozenset(("Exp", "LogSoftmax", "ReduceLogSum", "ReduceLogSumExp", "Softmax"))
_BOUNDED = frozenset(("Erf", "HardSigmoid", "Sigmoid", "Softmax", "Tanh"))
_HEAVY = frozenset(("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"))
MOVES = frozenset(
    (
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    )
)


@dataclass(frozen=True)
class NodePlan:
    """One node's precision, `fp16` or `fp32`, and the reason for it.

    `largest` is the largest magnitude measured among its inputs, weights and
    outputs; `headroom` is 65504 over that (None where it is zero).
    """

    node: str
    op_type: str
    precision: str
    reason: str
    largest: float
    headroom: float | None


@dataclass(frozen=True)
class Hazard:
    """Why a node is unsafe in FP16: a `kind` to tell it by, and the reason in words."""

    kind: str
    reason: str


@dataclass(frozen=True)
class PrecisionPlan:
    """The precision of every node that makes floats, in graph order, and the ranges that were measured.

    `ranges` is max |x| of each tensor over the parity inputs.
    """

    nodes: tuple[NodePlan, ...]
    ranges: Mapping[str, float]
    subnormal_weights: int

    def half_nodes(self) -> frozenset[str]:
        """Names of the nodes that run in FP16."""
        return frozenset(plan.node for plan in self.nodes if plan.precision == "fp16")

    def count(self, precision: str) -> int:
        return sum(plan.precision == precision for plan in self.nodes)

    def as_dict(self) -> dict[str, Any]:
        return {
            "fp16_nodes": self.count("fp16"),
            "fp32_nodes": self.count("fp32"),
            "weights_below_fp16_normal": self.subnormal_weights,
            "nodes": [{**asdict(plan), "largest": finite_or_none(plan.largest)} for plan in self.nodes],
            "tensors": {
                name: {"largest": finite_or_none(largest), "headroom": _headroom(largest)}
                for name, largest in self.ranges.items()
            },
        }


def plan_from_graph(model: onnx.ModelProto, ranges: Mapping[str, float]) -> PrecisionPlan:
    """Decides each node's precision from what it computes and what was measured.

    Args:
        model: an FP32 graph whose nodes have unique names.
        ranges: max |x| of its tensors, from `tensor_ranges`.
    """
    view = GraphView(model)
    grown: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for node in model.graph.node:
        reason = _reason_for_fp32(view, node, ranges, grown)
        if reason:
            reasons[node.name] = reason
        track_growth(view, node, grown)
    _widen_what_lies_between(view, model.graph, reasons)
    plans = [
        _node_plan(view, node, ranges, reasons.get(node.name)) for node in model.graph.node if view.makes_float(node)
    ]
    return PrecisionPlan(tuple(plans), dict(ranges), view.weights_below(FP16_SMALLEST_NORMAL))


def plain_half_plan(model: onnx.ModelProto) -> PrecisionPlan:
    """What `model.half()` does: FP16 wherever the operator has a form of it. To compare a plan with."""
    view = GraphView(model)
    nodes = [node for node in model.graph.node if view.makes_float(node)]
    plans = [
        NodePlan(node.name, node.op_type, "fp16" if view.can_be_half(node) else "fp32", "plain half", 0.0, None)
        for node in nodes
    ]
    return PrecisionPlan(tuple(plans), {}, view.weights_below(FP16_SMALLEST_NORMAL))


def _node_plan(view: GraphView, node: onnx.NodeProto, ranges: Mapping[str, float], reason: str | None) -> NodePlan:
    largest = _largest(view, node, ranges)
    headroom = _headroom(largest)
    if reason is not None:
        return NodePlan(node.name, node.op_type, "fp32", reason, largest, headroom)
    safe = f"largest magnitude {largest:.3g}" + (f", {headroom:.3g} times below overflow" if headroom else "")
    return NodePlan(node.name, node.op_type, "fp16", safe, largest, headroom)


def _headroom(largest: float) -> float | None:
    return FP16_LARGEST / largest if largest else None


def hazard_by_meaning(
    view: GraphView, node: onnx.NodeProto, grown: Mapping[str, str], ranges: Mapping[str, float] | None = None
) -> Hazard | None:
    """What makes a node unsafe in FP16 by what it computes; lint asks the same.

    Args:
        view: the graph around the node.
        grown: tensors that grow without bound and why, as `track_growth` keeps it over the nodes before this one.
        ranges: max |x| by tensor, where it was measured: short sums are then judged by it.
    """
    if node.op_type in _NORMS:
        return Hazard("norm", "norm: squares, or a division by a small deviation")
    if node.op_type in _EXPONENTIALS:
        return Hazard("exponential", "exponentials and their sum")
    if reason := _square(view, node):
        return Hazard("square", reason)
    if reason := _reduction(view, node, ranges):
        return Hazard("sum", reason)
    if reason := _logits(view, node):
        return Hazard("logits", reason)
    if reason := _small_constant(view, node):
        return Hazard("small-constant", reason)
    return next((Hazard("growth", f"takes {grown[name]}") for name in node.input if name in grown), None)


def track_growth(view: GraphView, node: onnx.NodeProto, grown: dict[str, str]) -> None:
    """Follows sums over H x W and squares to where a bounded operator or a division by one ends them."""
    origin = next((grown[name] for name in node.input if name in grown), None)
    if _square(view, node) or node.op_type == "ReduceSumSquare":
        origin = f"the square of {node.name or node.output[0]}"
    elif node.op_type in ("ReduceSum", "ReduceL1"):
        count, spatial = view.reduced(node)
        if count is None or (spatial and count >= _WIDE_REDUCTION):
            origin = f"the sum of {node.name or node.output[0]}, which grows with the resolution"
    clipped = (
        node.op_type == "Clip"
        and len(node.input) == 3
        and all(view.constant(name) is not None for name in node.input[1:])
    )
    if node.op_type in _BOUNDED or clipped or (node.op_type == "Div" and any(name in grown for name in node.input[1:])):
        origin = None
    if origin:
        grown.update(dict.fromkeys(node.output, origin))


def _reason_for_fp32(
    view: GraphView, node: onnx.NodeProto, ranges: Mapping[str, float], grown: Mapping[str, str]
) -> str | None:
    if not view.can_be_half(node):
        return "its operator has no FP16 form"
    hazard = hazard_by_meaning(view, node, grown, ranges)
    return _measured(view, node, ranges) if hazard is None else hazard.reason


def _widen_what_lies_between(view: GraphView, graph: onnx.GraphProto, reasons: dict[str, str]) -> None:
    """Keeps cheap nodes in FP32 where they would only round between FP32 neighbours.

    First whole regions of such nodes, then moves of what FP32 nodes made.
    """
    cheap = {node.name: node for node in graph.node if node.op_type not in _HEAVY and node.name not in reasons}
    doubtful = list(cheap.values())
    while doubtful:
        node = doubtful.pop()
        near = [*view.users(node), *view.makers(node)]
        meets_half = any(other.name not in reasons and other.name not in cheap for other in near)
        if node.name in cheap and (meets_half or not view.users(node)):
            del cheap[node.name]
            doubtful.extend(near)  # what leaned on it has an FP16 neighbour now
    for name in cheap:
        reasons[name] = "stands between FP32 tensors: casting there and back costs more than it saves"
    for node in graph.node:
        makers = view.makers(node)
        if node.op_type in MOVES and makers and all(maker.name in reasons for maker in makers):
            reasons.setdefault(node.name, "moves what an FP32 node made")


def _square(view: GraphView, node: onnx.NodeProto) -> str | None:
    if len(node.input) < 2:
        return None
    if node.op_type == "Mul" and node.input[0] == node.input[1]:
        return "square: overflows above 255"
    if node.op_type == "Pow":
        exponent = view.constant(node.input[1])
        if exponent is None or float(abs(exponent).max()) > 1:
            return "power above 1: a square overflows above 255"
    return None


def _reduction(view: GraphView, node: onnx.NodeProto, ranges: Mapping[str, float] | None) -> str | None:
    if node.op_type not in _SUMS:
        return None
    count, spatial = view.reduced(node)
    if count is None:
        return "reduction over an extent that is only known at run time"
    if spatial and count >= _WIDE_REDUCTION:
        return f"reduction over H x W ({count} values)"
    if ranges is None:
        return None
    total = count * ranges.get(node.input[0], float("inf"))
    if total * HEADROOM > FP16_LARGEST:
        return f"sum of {count} values that may reach {total:.3g}"
    return None


def _logits(view: GraphView, node: onnx.NodeProto) -> str | None:
    if node.op_type not in ("Einsum", "MatMul") or not all(view.is_activation(name) for name in node.input):
        return None
    if not view.reaches_softmax(node) or any(view.is_scaled_down(name) for name in node.input):
        return None
    return "softmax logits without a scale before their product"


def _small_constant(view: GraphView, node: onnx.NodeProto) -> str | None:
    for name in filter(view.is_constant, node.input):
        # The shape first: a value may be a network's largest weight.
        value = view.constant(name) if all(extent == 1 for extent in view.shape(name) or ()) else None
        if value is not None and value.size == 1 and 0 < abs(float(value.reshape(-1)[0])) < FP16_SMALLEST_NORMAL:
            return f"constant {float(value.reshape(-1)[0]):.1e} is below FP16's normal numbers"
    return None


def _measured(view: GraphView, node: onnx.NodeProto, ranges: Mapping[str, float]) -> str | None:
    largest = _largest(view, node, ranges)
    if largest * HEADROOM <= FP16_LARGEST:
        return None
    return f"measured range: {largest:.3g} leaves less than {HEADROOM:g} times to 65504"


def _largest(view: GraphView, node: onnx.NodeProto, ranges: Mapping[str, float]) -> float:
    names = [name for name in (*node.input, *node.output) if name and view.is_float(name)]
    return max((ranges.get(name, view.constant_magnitude(name)) for name in names), default=0.0)
