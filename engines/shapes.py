"""Shape inference without the weights: all that it needs of a large constant are its type and extents."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_SMALL = 256  # elements; larger constants tell shape inference nothing


def inferred_shapes(model: onnx.ModelProto, data_prop: bool = False) -> onnx.GraphProto:
    """The graph with the shape and type of every tensor that can be inferred; large constants are inputs of it.

    Args:
        data_prop: also follow the values of small integer tensors.

    Raises:
        onnx.shape_inference.InferenceError: the graph contradicts itself.
    """
    import onnx

    return onnx.shape_inference.infer_shapes(without_weights(model), strict_mode=True, data_prop=data_prop).graph


def shapes_as_far_as_known(model: onnx.ModelProto, data_prop: bool = False) -> onnx.GraphProto:
    """The same for a graph that nobody vouches for: as it is where inference refuses it."""
    import onnx

    light = without_weights(model)
    try:
        return onnx.shape_inference.infer_shapes(light, data_prop=data_prop).graph
    except Exception:  # compiled code raises many types; who asks knows less then, and does not fail
        return light.graph


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large constants, and those in other files, as inputs."""
    import onnx

    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph, source = light.graph, model.graph
    graph.name = "graph"
    for field in ("input", "output", "value_info"):
        getattr(graph, field).extend(getattr(source, field))
    declared = {value.name for value in source.input}
    for node in source.node:
        large = _large_constant(node) if node.op_type == "Constant" and node.output else None
        if large is None:
            graph.node.append(node)
        else:
            graph.input.append(_as_input(node.output[0], large.data_type, large.dims))
    for tensor in source.initializer:
        if math.prod(tensor.dims) <= _SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(_as_input(tensor.name, tensor.data_type, tensor.dims))
    for sparse in source.sparse_initializer:
        if sparse.values.name not in declared:
            graph.input.append(_as_input(sparse.values.name, sparse.values.data_type, sparse.dims))
    return light


def _large_constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    # By its extents: to measure a message, protobuf writes it out.
    tensors = (item.t for item in node.attribute if item.name == "value")
    return next((tensor for tensor in tensors if math.prod(tensor.dims) > _SMALL), None)


def _as_input(name: str, elem_type: int, dims: Iterable[int]) -> onnx.ValueInfoProto:
    import onnx

    return onnx.helper.make_tensor_value_info(name, elem_type, list(dims))
