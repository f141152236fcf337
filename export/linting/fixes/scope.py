"""What is known about the tensors of a graph while it is rewritten: types, extents, constants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from deploy_attn.export.linting.graph import ONNX_DOMAINS, subgraphs

if TYPE_CHECKING:
    import numpy as np
    import onnx

_IR_WITH_DEFAULTS = 4  # from there on an initializer that is an input too may be overridden by a feed


class Scope:
    """The tensors of one graph; a subgraph asks the graph around it for what it lacks."""

    def __init__(
        self, graph: onnx.GraphProto, inferred: onnx.GraphProto, ir_version: int, outer: Scope | None = None
    ) -> None:
        self._outer = outer
        self._ir_version = ir_version
        self._types: dict[str, int] = {}
        self._shapes: dict[str, tuple[int | None, ...]] = {}
        fed = {value.name for value in graph.input} if ir_version >= _IR_WITH_DEFAULTS else set()
        self._constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in fed}
        self._aliases: dict[str, str] = {}
        for tensor in graph.initializer:
            self._types[tensor.name] = tensor.data_type
            self._shapes[tensor.name] = tuple(tensor.dims)
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            self._learn(value)
        for node in graph.node:
            self._add(node)

    def inner(self, graph: onnx.GraphProto, inferred: onnx.GraphProto) -> Scope:
        """The scope of a subgraph of this graph."""
        return Scope(graph, inferred, self._ir_version, self)

    def elem_type(self, name: str) -> int:
        """A tensor's `TensorProto.DataType`; UNDEFINED where inference does not tell."""
        return self._types.get(name, 0) or (self._outer.elem_type(name) if self._outer else 0)

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """A tensor's extents, None for an open one; None where not even the rank is known."""
        if name in self._shapes:
            return self._shapes[name]
        return self._outer.shape(name) if self._outer else None

    def value(self, name: str) -> np.ndarray[Any, Any] | None:
        """What a tensor holds whatever the network is fed with; None where that is not known."""
        import onnx

        while name in self._aliases:
            name = self._aliases[name]
        if name in self._constants:
            return onnx.numpy_helper.to_array(self._constants[name])
        return self._outer.value(name) if self._outer else None

    def _learn(self, value: onnx.ValueInfoProto) -> None:
        tensor = value.type.tensor_type
        self._types[value.name] = tensor.elem_type
        if tensor.HasField("shape"):
            self._shapes[value.name] = tuple(
                dimension.dim_value if dimension.HasField("dim_value") else None for dimension in tensor.shape.dim
            )

    def _add(self, node: onnx.NodeProto) -> None:
        if node.domain not in ONNX_DOMAINS:
            return
        if node.op_type == "Identity":
            self._aliases[node.output[0]] = node.input[0]
        if node.op_type == "Constant":
            tensor = _constant(node)
            if tensor is not None:
                self._constants[node.output[0]] = tensor


class Names:
    """Names that a model does not use yet, for tensors and for nodes."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._taken = set(_names(graph))

    def fresh(self, wish: str) -> str:
        name, count = wish, 0
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        yield from (value.name for value in values)
    for node in graph.node:
        yield node.name
        yield from node.input
        yield from node.output
        for body in subgraphs(node):
            yield from _names(body)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """What a Constant holds, whichever of its attributes says so."""
    import numpy as np
    import onnx

    for item in node.attribute:
        if item.name == "value":
            tensor: onnx.TensorProto = item.t
            return tensor
        if item.name in ("value_int", "value_ints"):
            return onnx.numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(item), np.int64))
        if item.name in ("value_float", "value_floats"):
            return onnx.numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(item), np.float32))
    return None
