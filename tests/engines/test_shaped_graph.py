"""Shapes of every tensor at one input: static, open, computed from shapes, and not to be told."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy_attn.engines.shaped_graph import shaped_graph
from deploy_attn.jetson.errors import DeployAttnError

OPEN = ("batch", 8, "height", "width")


def graph(
    nodes: list[onnx.NodeProto],
    shape: tuple[str | int, ...] = OPEN,
    constants: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] | None = None,
    opset: int = 13,
    output: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A graph from `x` to `y`, of a shape that it leaves open."""
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", output, None)],
    )
    weights = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    made = helper.make_graph(nodes, "g", *ends, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize("opset", [13, 17])
def test_an_open_size_is_told_by_the_input_through_nodes_that_compute_shapes(opset: int) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["batch"]),
        helper.make_node("Slice", ["shape", "two", "four"], ["size"]),
        helper.make_node("ReduceProd", ["size"], ["area"], keepdims=1),
        helper.make_node("Concat", ["batch", "eight", "area"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {
        name: np.array([value]) for name, value in {"zero": 0, "one": 1, "two": 2, "four": 4, "eight": 8}.items()
    }
    found = shaped_graph(graph(nodes, constants=constants, opset=opset), {"x": (3, 8, 4, 5)})
    assert found.tensors["y"].shape == (3, 8, 20)
    assert [operation.node.op_type for operation in found.operations] == ["Reshape"]


def test_a_part_of_a_shape_is_that_part() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], end=1),
        helper.make_node("Shape", ["x"], ["size"], start=-2),
        helper.make_node("ReduceProd", ["size"], ["area"], keepdims=1),
        helper.make_node("Concat", ["batch", "eight", "area"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    found = shaped_graph(graph(nodes, constants={"eight": np.array([8])}, opset=17), {"x": (3, 8, 4, 5)})
    assert found.tensors["y"].shape == (3, 8, 20)


def test_nodes_that_make_shapes_are_read_as_their_opset_has_them() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["extent"]),
        helper.make_node("Unsqueeze", ["extent"], ["batch"], axes=[0]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.array(0), "rest": np.array([-1])}
    found = shaped_graph(graph(nodes, constants=constants, opset=11), {"x": (3, 8, 4, 5)})
    assert found.tensors["y"].shape == (3, 160)


def test_what_is_made_of_weights_alone_is_a_constant_and_its_sources_are_not_counted() -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["turned"]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    model = graph(nodes, (2, 3), {"w": np.zeros((5, 3), np.float32)})
    found = shaped_graph(model, {"x": (2, 3)})
    assert (found.constants, found.tensors["turned"].shape) == (frozenset({"turned"}), (3, 5))
    assert [operation.node.op_type for operation in found.operations] == ["MatMul"]


def test_the_model_that_is_given_stays_as_it_is() -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"])])
    before = model.SerializeToString()
    shaped_graph(model, {"x": (1, 8, 2, 2)})
    assert model.SerializeToString() == before


def test_bytes_follow_the_type_of_each_tensor() -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)]
    found = shaped_graph(graph(nodes, (2, 3), output=TensorProto.FLOAT16), {"x": (2, 3)}).tensors
    assert (found["x"].bytes, found["y"].bytes, found["y"].dtype) == (24, 12, "float16")


def test_a_shape_that_depends_on_values_is_refused_with_the_node_that_makes_it() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"], "places_of"),
        helper.make_node("Cast", ["places"], ["y"], to=1),
    ]
    with pytest.raises(DeployAttnError, match=r"'places', which NonZero 'places_of' writes"):
        shaped_graph(graph(nodes, (2, 3)), {"x": (2, 3)})


def test_a_branch_that_reads_the_input_is_no_constant_though_its_condition_is() -> None:
    branch = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["e"])],
        "b",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, (2, 3))],
    )
    nodes = [
        helper.make_node("If", ["yes"], ["either"], then_branch=branch, else_branch=branch),
        helper.make_node("Relu", ["either"], ["y"]),
    ]
    found = shaped_graph(graph(nodes, (2, 3), {"yes": np.array(True)}), {"x": (2, 3)})
    assert [operation.node.op_type for operation in found.operations] == ["If", "Relu"]
    assert found.constants == {"yes"}


def test_a_shape_of_constants_that_cannot_be_computed_is_refused_with_its_node() -> None:
    nodes = [
        helper.make_node("Range", ["zero", "three", "zero"], ["target"], "steps"),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.array(0), "three": np.array(3)}
    with pytest.raises(DeployAttnError, match="Range 'steps': division by zero"):
        shaped_graph(graph(nodes, (2, 3), constants), {"x": (2, 3)})


def test_shapes_that_contradict_each_other_are_refused_with_what_inference_says() -> None:
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], (2, 3), {"w": np.zeros((5, 5), np.float32)})
    with pytest.raises(DeployAttnError, match="at x 2x3"):
        shaped_graph(model, {"x": (2, 3)})
