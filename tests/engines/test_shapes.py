"""Shape inference without the weights says what it says with them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy_attn.engines.shapes import inferred_shapes, shapes_as_far_as_known, without_weights


def _model(reshape_to: list[int]) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 16, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["y", "shape"], ["z"]),
        helper.make_node("MatMul", ["z", "square"], ["out"]),
    ]
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.asarray(reshape_to, np.int64), "shape"),
        numpy_helper.from_array(rng.standard_normal((64, 64)).astype(np.float16).astype(np.float32), "square"),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 8, 8])
    made = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [given], [made], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _extents(values: object) -> dict[str, list[int]]:
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}  # type: ignore[attr-defined]


def test_every_tensor_has_the_shape_that_inference_with_the_weights_gives() -> None:
    model = _model([1, 32, 64])
    whole = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    light = inferred_shapes(model)
    assert _extents(light.value_info) == _extents(whole.value_info) == {"y": [1, 32, 8, 8], "z": [1, 32, 64]}
    assert _extents(light.output) == _extents(whole.output) == {"out": [1, 32, 64]}


def test_large_constants_are_left_behind_and_small_ones_kept() -> None:
    light = without_weights(_model([1, 32, 64]))
    assert [tensor.name for tensor in light.graph.initializer] == ["shape"]
    assert {"weight", "square"} <= {value.name for value in light.graph.input}
    assert light.ByteSize() < 1000


def test_a_graph_that_contradicts_itself_is_refused_or_known_in_part() -> None:
    model = _model([1, 32, 63])
    with pytest.raises(onnx.shape_inference.InferenceError):
        inferred_shapes(model)
    assert "y" in {value.name for value in shapes_as_far_as_known(model).value_info}
