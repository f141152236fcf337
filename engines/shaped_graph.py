"""A graph with the shape and type of every tensor, at the sizes of one input, without running it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy_attn.jetson.errors import DeployAttnError, first_line

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """Extents, bytes of an element, and its type as numpy names it."""

    shape: Shape
    itemsize: int
    dtype: str

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.itemsize


@dataclass(frozen=True)
class Operation:
    """A node that depends on the input. Optional values that it leaves out are not among its inputs."""

    node: onnx.NodeProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ShapedGraph:
    """What runs for each input, in order.

    Attributes:
        inputs, outputs: names of the graph's own.
        constants: tensors that are the same for every input, and that an operation or an output uses: weights, and
            what nodes make of weights or of shapes alone, which any engine computes once.
        tensors: each name's shape and type.
    """

    operations: tuple[Operation, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: frozenset[str]
    tensors: Mapping[str, Tensor]


def shaped_graph(model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> ShapedGraph:
    """Infers the shapes of a graph whose inputs have these extents; the model stays as it is.

    Raises:
        DeployAttnError: shapes cannot be inferred, or not those of a tensor that is computed from the input.
    """
    inferred = _inferred(model, inputs)
    tensors = dict(_tensors(inferred))
    constants = {one.name for one in inferred.initializer} | {one.values.name for one in inferred.sparse_initializer}
    given = tuple(value.name for value in inferred.input if value.name not in constants)
    operations = []
    for node in inferred.node:
        names = tuple(name for name in node.input if name)
        outputs = tuple(name for name in node.output if name)
        if node.op_type in _OF_SHAPES or (constants.issuperset(names) and not _is_more_than_its_inputs(node)):
            constants.update(outputs)
        else:
            operations.append(Operation(node, names, outputs))
    outputs = tuple(value.name for value in inferred.output)
    used = {*outputs, *(name for operation in operations for name in operation.inputs)}
    _check_known(operations, {*given, *used}, tensors)
    return ShapedGraph(tuple(operations), given, outputs, frozenset(constants & used), tensors)


_OF_SHAPES = frozenset({"Shape", "Size"})
_RANDOM = frozenset({"RandomNormal", "RandomUniform"})
# What exporters make shapes of shapes with.
_OF_EXTENTS = frozenset(
    {
        *("Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Floor", "Gather", "Identity", "Max"),
        *("Min", "Mod", "Mul", "Range", "ReduceProd", "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where"),
    }
)
_FEW = 64  # elements: more than a tensor has axes


def _inferred(model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> onnx.GraphProto:
    """The graph with every shape that can be told; a copy."""
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    _fix_inputs(fixed.graph, inputs)
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
        while _freeze_extents(inferred):  # inference follows few of the nodes that make one shape of another
            inferred = onnx.shape_inference.infer_shapes(inferred, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:  # or protobuf's limit of 2 GiB
        raise DeployAttnError(
            f"The shapes of the graph cannot be inferred at {_text(inputs)}: {first_line(error)}. Export it again "
            "without --dynamic-size, or at that size."
        ) from error
    return inferred.graph


def _fix_inputs(graph: onnx.GraphProto, inputs: Mapping[str, Shape]) -> None:
    """Gives the inputs these extents, and forgets the shapes of other tensors that were said for open ones."""
    for value in graph.input:
        if value.name in inputs:
            dimensions = value.type.tensor_type.shape.dim
            del dimensions[:]
            for extent in inputs[value.name]:
                dimensions.add().dim_value = extent
    for value in (*graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if not all(one.HasField("dim_value") for one in kind.shape.dim):
            kind.ClearField("shape")


def _freeze_extents(model: onnx.ModelProto) -> bool:
    """Makes constants of known shapes, and of what small nodes make of constants; whether there were any."""
    import onnx

    graph = model.graph
    tensors = dict(_tensors(graph))
    known = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer if math.prod(one.dims) <= _FEW}
    frozen = []
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in tensors:
            ends = {one.name: one.i for one in node.attribute}
            extents = tensors[node.input[0]].shape[ends.get("start") : ends.get("end")]
            known[node.output[0]] = np.array(extents, dtype=np.int64)
        elif node.op_type in _OF_EXTENTS and _is_small(node, tensors) and known.keys() >= set(node.input) - {""}:
            known.update(zip(node.output, _run(node, known, model.opset_import)))
        else:
            continue
        frozen.append(node)
    for node in frozen:
        graph.node.remove(node)
        graph.initializer.extend(onnx.numpy_helper.from_array(known[name], name) for name in node.output)
    return bool(frozen)


def _is_small(node: onnx.NodeProto, tensors: Mapping[str, Tensor]) -> bool:
    return all(name in tensors and tensors[name].elements <= _FEW for name in node.output)


def _run(node: onnx.NodeProto, known: Mapping[str, Array], opsets: Iterable[onnx.OperatorSetIdProto]) -> list[Array]:
    """The outputs of one node, of constants.

    Raises:
        ValueError: they cannot be computed.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = [name for name in node.input if name]
    values = [onnx.helper.make_empty_tensor_value_info(name) for name in (*names, *node.output)]
    alone = onnx.helper.make_graph([node], "one", values[: len(names)], values[len(names) :])
    model = onnx.helper.make_model(alone, opset_imports=list(opsets))
    try:
        found = ReferenceEvaluator(model).run(None, {name: known[name] for name in names})
    except Exception as error:  # whatever numpy raises over such values
        raise ValueError(f"{node.op_type} {node.name!r}: {first_line(error)}") from error
    return [np.asarray(one) for one in found]


def _is_more_than_its_inputs(node: onnx.NodeProto) -> bool:
    """Whether its outputs may change where its inputs do not: noise, or a branch, which may read any tensor around."""
    return node.op_type in _RANDOM or any(one.HasField("g") for one in node.attribute)


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, Tensor]]:
    """Those whose type and shape are known."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind: Any = value.type.tensor_type
        if kind.HasField("shape") and kind.elem_type and all(one.HasField("dim_value") for one in kind.shape.dim):
            yield value.name, _tensor(tuple(one.dim_value for one in kind.shape.dim), kind.elem_type)
    for constant in graph.initializer:
        yield constant.name, _tensor(tuple(constant.dims), constant.data_type)
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], _tensor(tuple(attribute.t.dims), attribute.t.data_type)


def _tensor(shape: Shape, element: int) -> Tensor:
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
    return Tensor(shape, dtype.itemsize, dtype.name)


def _check_known(operations: Iterable[Operation], needed: set[str], tensors: Mapping[str, Tensor]) -> None:
    written = {name: operation.node for operation in operations for name in operation.outputs}
    unknown = sorted((needed | set(written)) - set(tensors))
    if unknown:
        node = written.get(unknown[0])
        by = f", which {node.op_type} {node.name!r} writes" if node is not None else ""
        raise DeployAttnError(
            f"{len(unknown)} tensors of the graph have no shape that can be told without running it, first "
            f"{unknown[0]!r}{by}. Export it again without --dynamic-size, or at one size."
        )


def _text(inputs: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in inputs.items())
