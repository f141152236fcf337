"""BOOL data and operands in each version."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.export.linting.graphs import FLOAT, Shape, findings, model_of, node, tensorrt_target

BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64


def effect(model: onnx.ModelProto, version: str, rule: str = "bool-operand") -> str | None:
    effects = [finding.effect for finding in findings(model, tensorrt_target(version)) if finding.rule == rule]
    assert len(effects) <= 1
    return effects[0] if effects else None


def moved(op_type: str, dtype: int = BOOL) -> onnx.ModelProto:
    indices = {"Gather": [0], "GatherElements": [[0]], "GatherND": [[0]], "ScatterND": [[0]], "ScatterElements": [[0]]}
    inputs: dict[str, tuple[int, Shape]] = {"x": (dtype, (2, 4))}
    if op_type == "ScatterND":
        inputs["u"] = (dtype, (1, 4))
    elif op_type == "ScatterElements":
        inputs["u"] = (dtype, (1, 1))
    names = "x i u" if "u" in inputs else "x i"
    return model_of(node(op_type, names, "y"), inputs, {"y": (dtype, None)}, {"i": np.array(indices[op_type])})


@pytest.mark.parametrize(
    ("op_type", "version", "expected"),
    [
        ("Gather", "8.0", None),
        ("Gather", "8.2", "refused"),
        ("Gather", "8.4", "refused"),
        ("Gather", "8.5", None),
        ("Gather", "10.3", None),
        ("GatherElements", "8.2", "refused"),
        ("GatherElements", "8.5", None),
        ("GatherND", "8.2", "refused"),
        ("GatherND", "8.5", None),
        ("ScatterND", "8.2", "risky"),
        ("ScatterND", "10.14", "risky"),
        ("ScatterND", "10.15", None),
        ("ScatterElements", "8.6", "risky"),
    ],
)
def test_nodes_that_move_bool(op_type: str, version: str, expected: str | None) -> None:
    assert effect(moved(op_type), version) == expected
    assert effect(moved(op_type, FLOAT), version) is None


def test_bool_indices_are_not_the_question_but_bool_data() -> None:
    model = model_of(node("Where", "c x z", "y"), {"c": (BOOL, (4,)), "x": (4,), "z": (4,)}, {"y": (FLOAT, None)})
    assert effect(model, "8.2") is None


@pytest.mark.parametrize(
    ("version", "expected"),
    [("8.0", "refused"), ("8.2", "refused"), ("8.4", "risky"), ("8.5", "risky"), ("8.6", None), ("10.3", None)],
)
def test_where_between_bool_values(version: str, expected: str | None) -> None:
    model = model_of(node("Where", "c x z", "y"), dict.fromkeys("cxz", (BOOL, (4,))), {"y": (BOOL, None)})
    assert effect(model, version) == expected


@pytest.mark.parametrize(
    ("version", "expected"), [("8.0", "refused"), ("8.2", "refused"), ("8.4", None), ("11.0", None)]
)
def test_equal_of_bool_came_with_8_4(version: str, expected: str | None) -> None:
    def equal(dtype: int) -> onnx.ModelProto:
        return model_of(node("Equal", "x z", "y"), {"x": (dtype, (4,)), "z": (dtype, (4,))}, {"y": (BOOL, None)})

    assert effect(equal(BOOL), version) == expected
    assert effect(equal(FLOAT), version) is None


@pytest.mark.parametrize("op_type", ["Add", "Mul", "Greater", "Less", "ReduceMax"])
@pytest.mark.parametrize("version", ["8.2", "10.3", "11.0"])
def test_there_is_no_arithmetic_of_bool(op_type: str, version: str) -> None:
    def computed(dtype: int) -> onnx.ModelProto:
        names = "x" if op_type == "ReduceMax" else "x x"
        made = BOOL if op_type in ("Greater", "Less") else dtype
        return model_of(node(op_type, names, "y"), {"x": (dtype, (4,))}, {"y": (made, None)})

    assert effect(computed(BOOL), version) == "refused"
    assert effect(computed(FLOAT), version) is None


@pytest.mark.parametrize("op_type", ["And", "Or"])
def test_logic_is_of_bool_only(op_type: str) -> None:
    def logic(dtype: int) -> onnx.ModelProto:
        return model_of(node(op_type, "x z", "y"), {"x": (dtype, (4,)), "z": (dtype, (4,))}, {"y": (BOOL, None)})

    assert effect(logic(INT64), "8.2") == "refused"
    assert effect(logic(BOOL), "8.2") is None


@pytest.mark.parametrize("op_type", ["DepthToSpace", "SpaceToDepth"])
@pytest.mark.parametrize("version", ["8.2", "10.3", "11.0"])
def test_depth_is_not_moved_to_space_in_bool(op_type: str, version: str) -> None:
    def blocks(dtype: int) -> onnx.ModelProto:
        return model_of(node(op_type, "x", "y", blocksize=2), {"x": (dtype, (1, 4, 4, 4))}, {"y": (dtype, None)})

    assert effect(blocks(BOOL), version) == "refused"
    assert effect(blocks(FLOAT), version) is None
