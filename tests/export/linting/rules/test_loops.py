"""Holds the rules of If, Loop and the recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.export.linting.graphs import findings, found, model_of, node, tensorrt_target

COUNTS = {"GRU": (3, 2), "LSTM": (4, 3), "RNN": (1, 1)}  # gates, activations


def _recurrent(op_type: str, opset: int = 14, **attributes: Any) -> onnx.ModelProto:
    gates, _ = COUNTS[op_type]
    ways = 2 if attributes.get("direction") == "bidirectional" else 1
    constants = {"w": np.ones((ways, gates * 4, 5), np.float32), "r": np.ones((ways, gates * 4, 4), np.float32)}
    return model_of(
        node(op_type, "x w r", "y", hidden_size=4, **attributes), {"x": (3, 1, 5)}, {"y": (1, None)}, constants, opset
    )


@pytest.mark.parametrize("op_type", COUNTS)
@pytest.mark.parametrize("version", ["8.2.1", "11.0.0"])
def test_both_directions_need_the_same_activations(op_type: str, version: str) -> None:
    count = COUNTS[op_type][1]
    same, other = ["Tanh"] * 2 * count, ["Tanh"] * count + ["Relu"] * count
    target = tensorrt_target(version)
    assert "recurrent-layer" in found(_recurrent(op_type, direction="bidirectional", activations=other), target)
    assert "recurrent-layer" not in found(_recurrent(op_type, direction="bidirectional", activations=same), target)
    assert "recurrent-layer" not in found(_recurrent(op_type, direction="bidirectional"), target)
    assert "recurrent-layer" not in found(_recurrent(op_type, activations=["Relu"] * count), target)


@pytest.mark.parametrize(
    ("attributes", "version", "caught"),
    [
        ({"input_forget": 1}, "8.2.1", True),
        ({"input_forget": 1}, "11.0.0", True),
        ({"input_forget": 0}, "8.2.1", False),
        ({"layout": 0}, "8.2.1", False),
        ({"layout": 1}, "8.2.1", True),
        ({"layout": 1}, "10.1.0", True),
        ({"layout": 1}, "10.15.0", True),
    ],
)
def test_forms_of_lstm(attributes: dict[str, int], version: str, caught: bool) -> None:
    assert ("recurrent-layer" in found(_recurrent("LSTM", **attributes), tensorrt_target(version))) == caught


@pytest.mark.parametrize(
    ("op_type", "version", "effect"),
    [
        ("LSTM", "10.0.0", "wrong result"),
        ("LSTM", "10.1.0", "refused"),
        ("LSTM", "10.15.0", "wrong result"),
        ("GRU", "10.1.0", "wrong result"),
        ("RNN", "8.2.1", "wrong result"),
    ],
)
def test_a_batch_first_layout_is_refused_or_misread(op_type: str, version: str, effect: str) -> None:
    all_found = findings(_recurrent(op_type, layout=1), tensorrt_target(version))
    assert [one.effect for one in all_found if one.rule == "recurrent-layer"] == [effect]


def _branch(output: str, shape: tuple[int, ...] | None, extra: str = "") -> onnx.GraphProto:
    names = [output, *extra.split()]
    nodes = [helper.make_node("Identity", ["x"], [name], name=name) for name in names]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    return helper.make_graph(nodes, output, [], values)


@pytest.mark.parametrize(
    ("then", "other", "outputs", "caught"),
    [
        pytest.param(_branch("a", (2, 2)), _branch("b", (2, 2)), "y", False, id="alike"),
        pytest.param(_branch("a", (2, 2)), _branch("a", (2, 2)), "y", True, id="one name"),
        pytest.param(_branch("a", (2, 2)), _branch("b", (4,)), "y", True, id="other rank"),
        pytest.param(_branch("a", None), _branch("b", (4,)), "y", False, id="unknown rank"),
        pytest.param(_branch("a", (2, 2), "c"), _branch("b", (2, 2)), "y", True, id="other count"),
    ],
)
def test_branches_of_an_if(then: onnx.GraphProto, other: onnx.GraphProto, outputs: str, caught: bool) -> None:
    only = node("If", "c", outputs, then_branch=then, else_branch=other)
    model = model_of(only, {"x": (2, 2), "c": (TensorProto.BOOL, ())}, {"y": (1, None)})
    assert ("if-branches" in found(model)) == caught


def _loop(trips: str, condition: str, stacked: bool) -> onnx.ModelProto:
    """A loop that carries `v`, and stacks it where `stacked`."""
    values = [("i", TensorProto.INT64, ()), ("k", TensorProto.BOOL, ()), ("v", 1, (2,))]
    made = [("k2", TensorProto.BOOL, ()), ("v2", 1, (2,)), *([("s", 1, (2,))] if stacked else [])]
    nodes = [helper.make_node("Identity", ["k"], ["k2"]), helper.make_node("Add", ["v", "v"], ["v2"])]
    nodes += [helper.make_node("Identity", ["v"], ["s"])] if stacked else []
    body = helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(*value) for value in values],
        [helper.make_tensor_value_info(*value) for value in made],
    )
    only = node("Loop", f"{trips} {condition} x", "y z" if stacked else "y", body=body)
    return model_of(
        only,
        {"x": (2,), "m": (TensorProto.INT64, ()), "c": (TensorProto.BOOL, ())},
        {"y": (1, None)},
        {"n": np.array(3)},
    )


@pytest.mark.parametrize(
    ("model", "version", "effects"),
    [
        pytest.param(_loop("n", "-", True), "10.3.0", [], id="known"),
        pytest.param(_loop("m", "-", True), "10.3.0", ["refused"], id="taken"),
        pytest.param(_loop("n", "c", True), "10.3.0", ["risky"], id="ended early"),
        pytest.param(_loop("m", "-", False), "10.3.0", [], id="nothing stacked"),
        pytest.param(_loop("m", "-", True), "10.0.0", [], id="before the restriction is stated"),
    ],
)
def test_what_a_loop_stacks_has_a_known_length(model: onnx.ModelProto, version: str, effects: list[str]) -> None:
    caught = [item.effect for item in findings(model, tensorrt_target(version)) if item.rule == "loop-output"]
    assert caught == effects
