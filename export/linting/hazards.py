"""What overflows, cancels or vanishes in FP16, found without running the graph.

What a node computes is judged as the precision plan judges it
(`precision.hazard_by_meaning`); constants and cancelling variances come on top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.engines.target import Target
from deploy_attn.export.graph_view import GraphView
from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, label, subgraphs
from deploy_attn.export.precision import FP16_LARGEST, Hazard, hazard_by_meaning, track_growth

if TYPE_CHECKING:
    import onnx

_KEEP = "keep this node in FP32: the plan of `deploy-attn export --fp16` does"
_REMEDIES = MappingProxyType(
    {
        "square": f"scale before the square, or {_KEEP}",
        "sum": f"take the mean in FP32 and scale before a sum: {_KEEP}",
        "norm": _KEEP,
        "exponential": _KEEP,
        "logits": f"multiply the query by 1 / sqrt(d) before the product, or {_KEEP}",
        "small-constant": f"use at least 1e-4, or {_KEEP}",
        "growth": f"keep FP32 up to where the value is bounded: {_KEEP}",
        "variance": f"subtract the mean first and average the squares of what is left, or {_KEEP}",
        "overflow": "mask with -1e4 instead, or scale the weights; else " + _KEEP,
        "lost-eps": "use an eps of at least 1e-4, or keep the sum in FP32",
    }
)
_BOUNDS = frozenset(("Clip", "Max", "Min"))  # an infinite bound bounds nothing, as a very large one does
_MEANS = frozenset(("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"))
_DIVIDES = frozenset(("Div", "Log", "Pow", "Reciprocal", "Sqrt"))
_ADDS_EPS = frozenset(("Add", "Max"))
_FLOAT, _FLOAT16 = 1, 10  # TensorProto.DataType, asked too often to look up
_NO_ARITHMETIC = frozenset(("Cast", "Constant"))


def hazards(graph: LintGraph, target: Target) -> Iterator[Finding]:
    """Risky nodes among those that run in FP16.

    These are the nodes with FP16 outputs in a typed graph, and those that a
    precision plan puts there. In a plain FP32 file it is every node, if the
    target's engine is TensorRT, which may be told to run any of them in FP16.
    """
    view = _AnyFloat(graph.view)
    chosen = _chosen(graph, view, target)
    if chosen is None:
        return
    grown: dict[str, str] = {}
    overflown = _Overflow(graph)
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx") or not node.input or not view.makes_float(node):
            continue
        if node.op_type not in _NO_ARITHMETIC and chosen(node):
            for hazard in _of_node(view, node, grown, overflown):
                yield Finding(
                    f"half-{hazard.kind}",
                    label(node),
                    node.op_type,
                    "risky",
                    f"in FP16: {hazard.reason}",
                    _REMEDIES[hazard.kind],
                )
        track_growth(view, node, grown)


class _AnyFloat(GraphView):
    """The same graph, with FP16 tensors counted as floats."""

    def __init__(self, view: GraphView) -> None:
        self.__dict__.update(view.__dict__)

    def is_float(self, name: str) -> bool:
        return self.elem_type(name) in (_FLOAT, _FLOAT16)

    def is_half(self, name: str) -> bool:
        return self.elem_type(name) == _FLOAT16


class _Overflow:
    """How many values of a constant FP16 cannot hold; weights are read once and not kept."""

    def __init__(self, graph: LintGraph) -> None:
        self._view = graph.view
        inner = (body.initializer for node in graph.nodes for body in subgraphs(node))
        self._tensors = {tensor.name: tensor for tensor in chain(graph.model.graph.initializer, *inner)}
        self._found: dict[str, tuple[int, float]] = {}

    def of(self, name: str) -> tuple[int, float]:
        """The number of values beyond 65504, and the one that is farthest from zero."""
        if name not in self._found:
            self._found[name] = self._count(name)
        return self._found[name]

    def _count(self, name: str) -> tuple[int, float]:
        import onnx

        tensor = self._tensors.get(name)
        if tensor is None:
            value = self._view.value(name)
        elif tensor.data_location == onnx.TensorProto.EXTERNAL:
            value = None
        else:
            value = onnx.numpy_helper.to_array(tensor)
        if value is None or value.size == 0 or value.dtype.kind != "f":
            return 0, 0.0
        low, high = float(value.min()), float(value.max())
        if max(-low, high) <= FP16_LARGEST:
            return 0, 0.0
        return int((abs(value) > FP16_LARGEST).sum()), low if abs(low) > abs(high) else high


def _chosen(graph: LintGraph, view: _AnyFloat, target: Target) -> Callable[[onnx.NodeProto], bool] | None:
    """Which nodes are in FP16; None where none can be."""
    if graph.half_planned is not None:
        planned = graph.half_planned
        return lambda node: node.name in planned or any(view.is_half(name) for name in node.output)
    if any(view.is_half(name) for node in graph.nodes for name in node.output):
        return lambda node: any(view.is_half(name) for name in node.output)
    return None if target.tensorrt is None else lambda node: True


def _of_node(view: _AnyFloat, node: onnx.NodeProto, grown: dict[str, str], overflown: _Overflow) -> Iterator[Hazard]:
    meaning = _variance(view, node) or hazard_by_meaning(view, node, grown)
    if meaning is not None and not _is_folded(view, node):
        yield meaning
    if node.op_type not in _BOUNDS:
        for name in node.input:
            count, largest = overflown.of(name) if view.is_constant(name) and view.is_float(name) else (0, 0.0)
            if count:
                yield Hazard("overflow", _overflow(count, largest))
    if _loses_eps(view, node):
        yield Hazard("lost-eps", "the constant that keeps what follows from a division by zero is 0 itself")


def _overflow(count: int, largest: float) -> str:
    values = "a constant is" if count == 1 else f"{count} values of a constant are"
    tail = "; where a whole row of a softmax is masked so, it becomes NaN" if largest < 0 else ""
    return f"{values} beyond 65504 ({largest:.3g}) and become infinite{tail}"


def _variance(view: GraphView, node: onnx.NodeProto) -> Hazard | None:
    """E[x^2] - E[x]^2: what is left of two large, nearly equal numbers."""
    if node.op_type != "Sub" or len(node.input) < 2:
        return None
    mean, square = (view.maker(name) for name in node.input)
    if mean is None or square is None or mean.op_type not in _MEANS:
        return None
    if not _is_square(view, square) or not _is_square(view, view.maker(mean.input[0])):
        return None
    return Hazard("variance", "E[x^2] - E[x]^2 cancels: little is left of two nearly equal numbers")


def _is_square(view: GraphView, node: onnx.NodeProto | None) -> bool:
    if node is None or node.op_type not in ("Mul", "Pow"):
        return False
    hazard = hazard_by_meaning(view, node, {})
    return hazard is not None and hazard.kind == "square"


def _is_folded(view: GraphView, node: onnx.NodeProto) -> bool:
    """A BatchNormalization of constants: the builder makes a scale and a shift of it, in FP32."""
    return node.op_type == "BatchNormalization" and all(view.is_constant(name) for name in node.input[1:])


def _loses_eps(view: _AnyFloat, node: onnx.NodeProto) -> bool:
    """An FP16 constant of zero is added to, or bounds, what is then divided by, or taken the root or log of."""
    if node.op_type not in _ADDS_EPS or not any(user.op_type in _DIVIDES for user in view.users(node)):
        return False
    values = [view.constant(name) for name in node.input if view.is_half(name) and view.is_constant(name)]
    return any(value is not None and value.size == 1 and not value.any() for value in values)
