"""Reshape targets that the exporter computes at run time -> constants, wherever they are known beforehand.

An exporter asks a map for its shape and builds a target from the answer, also
where 0 (keep this extent) or -1 (the rest) says the same. Parsers of old
engines read a constant target; shape arithmetic they may refuse or misread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.shapes import inferred_shapes, without_weights

if TYPE_CHECKING:
    import onnx

Extent = int | str  # a number, or the name of one that is known at run time only


def freeze_reshapes(model: onnx.ModelProto) -> None:
    """Replaces what it can in place, and removes the nodes that nothing reads any more."""
    while _freeze_once(model):  # a constant target tells more shapes behind it
        pass
    _drop_unread(model.graph)


def _freeze_once(model: onnx.ModelProto) -> bool:
    """Whether any target became a constant."""
    import numpy as np
    import onnx

    shapes = _Shapes(model)
    known = {tensor.name for tensor in model.graph.initializer}
    count = len(known)
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] in known or _takes_zero_literally(node):
            continue
        frozen = _frozen(shapes.of(node.input[0]), shapes.value(node.input[1]))
        if frozen is not None:
            name = f"{node.output[0]}__shape"
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(frozen, np.int64), name))
            node.input[1] = name
            count += 1
    return count > len(known)


def _takes_zero_literally(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)


def _frozen(data: list[Extent] | None, target: list[Extent | None] | None) -> list[int] | None:
    """The target as numbers, None where it needs more than one extent that only the run knows."""
    if target is None:
        return None
    frozen: list[int] = []
    for index, wanted in enumerate(target):
        if isinstance(wanted, int):
            frozen.append(wanted)
        elif wanted is not None and data is not None and index < len(data) and data[index] == wanted:
            frozen.append(0)
        else:
            frozen.append(-1)
    return frozen if frozen.count(-1) <= 1 else None


class _Shapes:
    """Shapes of a graph's tensors, and the values of the integer vectors computed from them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        inferred = shapes_from_inputs(model)
        doubtful = _behind_rounding_up(model.graph)
        self._shapes: dict[str, list[Extent]] = {}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            tensor = value.type.tensor_type
            if tensor.HasField("shape") and value.name not in doubtful:
                self._shapes[value.name] = [
                    extent.dim_value if extent.HasField("dim_value") else extent.dim_param or f"{value.name}[{index}]"
                    for index, extent in enumerate(tensor.shape.dim)
                ]
        given = {value.name for value in model.graph.input}  # an initializer of such a name is only its default
        self._constants = {
            tensor.name: onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()
            for tensor in model.graph.initializer
            if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) <= 1 and tensor.name not in given
        }
        self._makers = {name: node for node in model.graph.node for name in node.output}

    def of(self, name: str) -> list[Extent] | None:
        return self._shapes.get(name)

    def value(self, name: str) -> list[Extent | None] | None:
        """An integer vector, element by element; None for an element, or a vector, that is not known."""
        if name in self._constants:
            return list(self._constants[name])
        node = self._makers.get(name)
        if node is None:
            return None
        if node.op_type == "Shape":
            return self._shape_value(node)
        if node.op_type == "Concat":
            parts = [self.value(part) for part in node.input]
            return None if None in parts else [element for part in parts if part is not None for element in part]
        if node.op_type in ("Identity", "Squeeze", "Unsqueeze") or _keeps_integers(node):
            return self.value(node.input[0])
        if node.op_type in ("Gather", "Slice"):
            return self._part(node)
        return [None] if self._is_one_element(name) else None

    def _shape_value(self, node: onnx.NodeProto) -> list[Extent | None] | None:
        shape = self.of(node.input[0])
        if shape is None:
            return None
        bounds = {attribute.name: attribute.i for attribute in node.attribute}
        return list(shape[bounds.get("start", 0) : bounds.get("end", len(shape))])

    def _part(self, node: onnx.NodeProto) -> list[Extent | None] | None:
        whole = self.value(node.input[0])
        chosen = [self._constants.get(name) for name in node.input[1:]]
        if whole is None or None in chosen:
            return None
        numbers: list[Any] = [part for part in chosen if part is not None]
        if node.op_type == "Gather":
            return [whole[index] for index in numbers[0]]
        step = numbers[3][0] if len(numbers) > 3 else 1
        return whole[numbers[0][0] : numbers[1][0] : step]

    def _is_one_element(self, name: str) -> bool:
        shape = self._shapes.get(name)
        return shape == [] or shape == [1]


def shapes_from_inputs(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with every shape that follows from its inputs; what an exporter states of outputs is not believed."""
    unstated = without_weights(model)
    for value in unstated.graph.output:
        value.type.tensor_type.ClearField("shape")
    return inferred_shapes(unstated, data_prop=True)


def _keeps_integers(node: onnx.NodeProto) -> bool:
    import onnx

    return node.op_type == "Cast" and node.attribute[0].i in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def _behind_rounding_up(graph: onnx.GraphProto) -> set[str]:
    """Tensors behind a pooling with ceil_mode, of whose windows onnx's shape inference may count one too many."""
    found: set[str] = set()
    for node in graph.node:
        if found.intersection(node.input) or any(a.name == "ceil_mode" and a.i for a in node.attribute):
            found.update(node.output)
    return found


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Removes nodes and initializers whose results nothing reads."""
    while True:
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        read.update(names_in_branches(graph))
        kept = [node for node in graph.node if any(name in read for name in node.output)]
        if len(kept) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(kept)
    initializers = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def names_in_branches(graph: onnx.GraphProto) -> Iterable[str]:
    """Names that the branches and loops of a graph read, their own and those of the graph around them."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from (name for part in inner.node for name in part.input)
                yield from (value.name for value in inner.output)
                yield from names_in_branches(inner)
