"""What a tensor holds where only constants decide it: the pads of an exported network, as a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy_attn.export.linting.graph import ONNX_DOMAINS, LintGraph, subgraphs

if TYPE_CHECKING:
    import numpy as np
    import onnx

_MOST_NODES = 32
_MOST_ELEMENTS = 1024  # of a constant that is computed with
_BY_CHANCE = frozenset(("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"))


def known_value(graph: LintGraph, name: str) -> np.ndarray[Any, Any] | None:
    """A constant's value, or what a few nodes make of constants; None where a graph input has a say, or a shape."""
    value = graph.view.value(name)
    if value is not None or graph.view.maker(name) is None:
        return value
    nodes = _nodes_before(graph, name)
    return None if nodes is None else _computed(graph, nodes, name)


def _nodes_before(graph: LintGraph, name: str) -> list[onnx.NodeProto] | None:
    """The nodes that make a tensor from constants, in the order of the graph; None where they do not."""
    inputs = {value.name for value in graph.model.graph.input}
    waiting, seen = [name], {name}
    found: list[onnx.NodeProto] = []
    while waiting:
        current = waiting.pop()
        if graph.view.is_constant(current):
            value = graph.view.value(current)
            if value is None or value.size > _MOST_ELEMENTS:
                return None
            continue
        maker = graph.view.maker(current)
        if maker is None or current in inputs or not _is_folded(maker) or len(found) == _MOST_NODES:
            return None
        if maker not in found:
            found.append(maker)
        fresh = [item for item in maker.input if item and item not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
    wanted = {id(node) for node in found}
    return [node for node in graph.nodes if id(node) in wanted]


def _is_folded(node: onnx.NodeProto) -> bool:
    return node.domain in ONNX_DOMAINS and node.op_type not in _BY_CHANCE and not any(subgraphs(node))


def _computed(graph: LintGraph, nodes: list[onnx.NodeProto], name: str) -> np.ndarray[Any, Any] | None:
    import numpy as np
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = {item for node in nodes for item in node.input if item and graph.view.is_constant(item)}
    values = ((item, graph.view.value(item)) for item in sorted(names))
    constants = [onnx.numpy_helper.from_array(value, item) for item, value in values if value is not None]
    output = onnx.helper.make_tensor_value_info(name, graph.view.elem_type(name), None)
    body = onnx.helper.make_graph(nodes, "constants", [], [output], constants)
    opsets = [onnx.helper.make_opsetid("", graph.opset)]
    try:
        (value,) = ReferenceEvaluator(onnx.helper.make_model(body, opset_imports=opsets)).run(None, {})
    except Exception:  # a reference implementation may raise anything; the value is then not known
        return None
    return value if isinstance(value, np.ndarray) else None
