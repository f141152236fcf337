"""Precision plan + FP32 graph -> typed FP16 graph, with Casts where the precision changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from deploy_attn.export.graph_view import GraphView

if TYPE_CHECKING:
    import onnx

    from deploy_attn.export.precision import PrecisionPlan


def typed_from_plan(model: onnx.ModelProto, plan: PrecisionPlan) -> onnx.ModelProto:
    """A graph of the same nodes and names in which every FP16 node has FP16 tensors.

    Inputs and outputs stay FP32, so that the interface is the FP32 graph's and
    what the plan keeps in FP32 reads the input unrounded. One Cast serves all
    readers of a tensor; weights are stored in the type that reads them.
    """
    import onnx

    writer = _Writer(model)
    half = plan.half_nodes()
    for node in model.graph.node:
        writer.add(node, node.name in half)
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    del typed.graph.node[:], typed.graph.initializer[:], typed.graph.value_info[:]
    typed.graph.node.extend(writer.nodes)
    outputs = {value.name for value in model.graph.output}
    typed.graph.initializer.extend(_used(writer.initializers.values(), writer.nodes, outputs))
    return typed


class _Writer:
    """Adds nodes one by one and keeps track of which tensors exist in which type."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._view = GraphView(model)
        self._outputs = {value.name for value in model.graph.output}
        self._half: dict[str, str] = {}  # FP32 name -> name of its FP16 version
        self._full: dict[str, str] = {}  # name of a tensor made in FP16 -> name of its FP32 version

    def add(self, node: onnx.NodeProto, half: bool) -> None:
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        half_inputs = set(self._view.half_inputs(node)) if half else set()
        for index, name in enumerate(node.input):
            if self._view.is_float(name):
                copy.input[index] = self._as_half(name) if index in half_inputs else self._as_full(name)
        for name in set(_taken_by_branches(node)) & set(self._full):
            _renamed_in_branches(copy, name, self._as_full(name))
        self.nodes.append(copy)
        if half:
            for index, name in enumerate(node.output):
                if self._view.is_float(name):
                    self._made_in_half(copy, index, name)

    def _made_in_half(self, copy: onnx.NodeProto, index: int, name: str) -> None:
        """A graph output keeps its name for its FP32 version; any other tensor for what its node makes."""
        half = f"{name}__fp16" if name in self._outputs else name
        copy.output[index] = half
        self._half[name] = half
        self._full[name] = ""
        if name in self._outputs:
            self._full[name] = self._cast(half, name, "FLOAT")

    def _as_half(self, name: str) -> str:
        if name not in self._half:
            target = f"{name}__fp16"
            self._half[name] = target
            if name in self.initializers:
                self.initializers[target] = _half_initializer(self.initializers[name], target)
            else:
                self._cast(name, target, "FLOAT16")
        return self._half[name]

    def _as_full(self, name: str) -> str:
        if name not in self._full:
            return name
        if not self._full[name]:
            self._full[name] = self._cast(self._half[name], f"{name}__fp32", "FLOAT")
        return self._full[name]

    def _cast(self, source: str, target: str, kind: str) -> str:
        import onnx

        to = onnx.TensorProto.DataType.Value(kind)
        self.nodes.append(onnx.helper.make_node("Cast", [source], [target], f"{target}/Cast", to=to))
        return target


def _half_initializer(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    import numpy as np
    import onnx

    return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), name)


def _used(
    initializers: Iterable[onnx.TensorProto], nodes: list[onnx.NodeProto], outputs: set[str]
) -> list[onnx.TensorProto]:
    read = outputs | {name for node in nodes for name in (*node.input, *_taken_by_branches(node))}
    return [tensor for tensor in initializers if tensor.name in read]


def _branches(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs


def _taken_by_branches(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node's subgraphs read, their own and those of the graph around them."""
    for graph in _branches(node):
        for inner in graph.node:
            yield from inner.input
            yield from _taken_by_branches(inner)


def _renamed_in_branches(node: onnx.NodeProto, old: str, new: str) -> None:
    for graph in _branches(node):
        for inner in graph.node:
            inner.input[:] = [new if name == old else name for name in inner.input]
            _renamed_in_branches(inner, old, new)
