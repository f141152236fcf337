"""A model as lint's rules look at it: any valid ONNX file, whole or with its weights elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.shapes import shapes_as_far_as_known
from deploy_attn.export.graph_view import GraphView

if TYPE_CHECKING:
    import onnx

ONNX_DOMAINS = ("", "ai.onnx")
_GRAPHS = 10  # AttributeProto.GRAPHS


class LintGraph:
    """The nodes of a model, those of subgraphs and of its own functions included, and questions about them.

    Attributes:
        model: with calls of its own functions replaced by their nodes.
        view: types, shapes, constants and neighbours.
        half_planned: names of FP32 nodes that a precision plan runs in FP16; None where there is no plan.
        nodes: in graph order, a subgraph's after the node that holds it.
        foreign: those of other domains than ONNX's own.
        calls: the calls of the model's own functions, as the file has them.
    """

    def __init__(self, model: onnx.ModelProto, half_planned: frozenset[str] | None = None) -> None:
        self.calls = tuple(_calls(model))
        self.model = _inlined(model) if self.calls else model
        inferred = shapes_as_far_as_known(self.model)
        self.view = GraphView(self.model, inferred)
        self.half_planned = half_planned
        self.nodes = tuple(nodes_of(self.model.graph))
        if len(self.nodes) > len(self.model.graph.node):
            for subgraph, known in zip(_inner(self.model.graph), _inner(inferred)):
                self.view.include(subgraph, known)
        self._by_operator: dict[str, list[tuple[int, onnx.NodeProto]]] = {}
        foreign = []
        for place, node in enumerate(self.nodes):
            if node.domain in ONNX_DOMAINS:
                self._by_operator.setdefault(node.op_type, []).append((place, node))
            else:
                foreign.append(node)
        self.foreign = tuple(foreign)

    @property
    def opset(self) -> int:
        """Of ONNX's own operators; 0 where the model imports none of them."""
        return self.view.opset

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators of ONNX's own domain that the model uses."""
        return tuple(self._by_operator)

    def named(self, *op_types: str) -> Iterator[onnx.NodeProto]:
        """The nodes of these operators of ONNX's own domain, in graph order."""
        found = [item for op_type in dict.fromkeys(op_types) for item in self._by_operator.get(op_type, ())]
        return (node for _, node in sorted(found, key=itemgetter(0)))


def label(node: onnx.NodeProto) -> str:
    """What a node is called in a finding."""
    return node.name or next((name for name in node.output if name), node.op_type)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value as Python has it, or the default."""
    import onnx

    return next((onnx.helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def given(node: onnx.NodeProto, index: int) -> str | None:
    """The name of an input, None where it is left out."""
    return node.input[index] if index < len(node.input) and node.input[index] else None


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """A graph's nodes, each followed by those of its subgraphs."""
    for node in graph.node:
        yield node
        for subgraph in subgraphs(node):
            yield from nodes_of(subgraph)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of If, Loop and Scan."""
    for item in node.attribute:
        if item.HasField("g"):
            yield item.g
        elif item.type == _GRAPHS:
            yield from item.graphs


def _inner(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Every subgraph at every depth."""
    for node in graph.node:
        for subgraph in subgraphs(node):
            yield subgraph
            yield from _inner(subgraph)


def _calls(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    functions = {(function.domain, function.name) for function in model.functions}
    if functions:
        yield from (node for node in nodes_of(model.graph) if (node.domain, node.op_type) in functions)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model, convert_version=True)
    except Exception:  # compiled code raises many types; a call is then a node like any other
        return model
