"""The pessimistic FP16 bracket: a typed graph run with a rounding at every FP16 node.

onnxruntime on a CPU computes FP16 nodes in FP32 and keeps FP32 between them,
which hides overflow and loss of precision. Here each FP16 tensor becomes FP32
and goes through FP16 and back where it is made, so that no engine setting can
leave a rounding out. Kernels of a GPU lie between the two brackets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy_attn.engines.shapes import inferred_shapes

if TYPE_CHECKING:
    import onnx


def rounded_from_typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """An FP32 graph that rounds wherever the typed graph holds FP16.

    Node names are kept; each rounding adds two Cast nodes. Inputs and outputs
    keep the typed graph's names and become FP32 if they were FP16.
    """
    import onnx

    half = half_tensors(model)
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    graph = rounded.graph
    del graph.value_info[:]
    _widen_initializers(graph)
    taken = [value.name for value in graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    nodes = list(graph.node)
    del graph.node[:]
    for name in taken:
        graph.node.extend(_rounding(name, name, f"{name}__rounded"))
    for node in nodes:
        node.input[:] = [f"{name}__rounded" if name in taken else name for name in node.input]
        graph.node.extend(_rounded_node(node, half))
    return rounded


def half_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of the FP16 tensors that nodes of a typed graph produce."""
    import onnx

    inferred = inferred_shapes(model)
    half = onnx.TensorProto.FLOAT16
    return {
        value.name for value in (*inferred.value_info, *inferred.output) if value.type.tensor_type.elem_type == half
    }


def _widen_initializers(graph: onnx.GraphProto) -> None:
    import numpy as np
    import onnx

    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _rounded_node(node: onnx.NodeProto, half: set[str]) -> list[onnx.NodeProto]:
    import onnx

    made = [name for name in node.output if name in half]
    wide = onnx.NodeProto()
    wide.CopyFrom(node)
    if wide.op_type == "Cast":
        for attribute in wide.attribute:
            if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT16:
                attribute.i = onnx.TensorProto.FLOAT
    nodes = [wide]
    for index, name in enumerate(node.output):
        if name not in made:
            continue
        wide.output[index] = f"{name}__exact"
        nodes += _rounding(name, f"{name}__exact", name)
    return nodes


def _rounding(name: str, source: str, target: str) -> list[onnx.NodeProto]:
    """Two Casts, through FP16 and back."""
    import onnx

    half = f"{name}__half"
    return [
        onnx.helper.make_node("Cast", [source], [half], f"{name}__round", to=onnx.TensorProto.FLOAT16),
        onnx.helper.make_node("Cast", [half], [target], f"{name}__widen", to=onnx.TensorProto.FLOAT),
    ]
