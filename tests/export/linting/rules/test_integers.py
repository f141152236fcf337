"""INT64 before 9.0: constants, what carries them, and the network's inputs and outputs. Mod."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.export.linting.graphs import FLOAT, findings, model_of, node, one, tensorrt_target

BOOL, INT32, INT64 = TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64
LAST, FIRST = np.iinfo(np.int64).max, np.iinfo(np.int64).min


def clamped(model: onnx.ModelProto, version: str = "8.2") -> list[str]:
    return [item.node for item in findings(model, tensorrt_target(version)) if item.rule == "int64-clamped"]


def effect(model: onnx.ModelProto, version: str, rule: str) -> str | None:
    effects = [finding.effect for finding in findings(model, tensorrt_target(version)) if finding.rule == rule]
    assert len(effects) <= 1
    return effects[0] if effects else None


def greater(value: int) -> onnx.ModelProto:
    return model_of(
        node("Greater", "x limit", "y"), {"x": (INT64, (4,))}, {"y": (BOOL, None)}, {"limit": np.array(value, np.int64)}
    )


@pytest.mark.parametrize(
    ("value", "version", "found"),
    [
        (2**31 - 1, "8.2", False),
        (2**31, "8.2", True),
        (-(2**31), "8.2", False),
        (-(2**31) - 1, "8.2", True),
        (LAST, "8.0", True),
        (LAST, "8.6", True),
        (LAST, "9.0", False),
        (LAST, "10.3", False),
    ],
)
def test_a_constant_beyond_int32_is_clamped_before_9_0(value: int, version: str, found: bool) -> None:
    assert clamped(greater(value), version) == (["Greater"] if found else [])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(FIRST, LAST), min_size=1, max_size=4))
def test_what_is_found_is_what_clamping_changes(values: list[int]) -> None:
    wide = np.array(values, np.int64)
    changed = bool((np.clip(wide, -(2**31), 2**31 - 1) != wide).any())
    model = model_of(node("Greater", "x limit", "y"), {"x": (INT64, wide.shape)}, {"y": (BOOL, None)}, {"limit": wide})
    assert bool(clamped(model)) is changed


@pytest.mark.parametrize("end", [LAST, LAST - 1, 2**40])
@pytest.mark.parametrize("step", [1, 2**33])
def test_an_end_or_step_of_slice_means_the_same_when_clamped(end: int, step: int) -> None:
    constants = {"starts": [0], "ends": [end], "axes": [1], "steps": [step]}
    assert clamped(one("Slice", (1, 8, 4), constants)) == []


def test_a_slice_backwards_to_the_least_number_means_the_same_when_clamped() -> None:
    assert clamped(one("Slice", (1, 8, 4), {"starts": [LAST], "ends": [FIRST], "axes": [1], "steps": [-1]})) == []


def test_a_sentinel_may_pass_through_nodes_that_carry_it() -> None:
    nodes = [
        node("Unsqueeze", "last axis", "end"),
        node("Concat", "end end", "ends", axis=0),
        node("Cast", "ends", "same", to=INT64),
        node("Slice", "x starts same", "y"),
    ]
    constants = {"last": np.array(LAST), "axis": [0], "starts": [0, 0]}
    model = model_of(nodes, {"x": (4, 4)}, {"y": (FLOAT, None)}, constants)
    assert clamped(model) == []


@pytest.mark.parametrize("op_type", ["Cast", "Neg"])
def test_a_sentinel_that_is_computed_with_is_none(op_type: str) -> None:
    attributes: dict[str, Any] = {"to": FLOAT} if op_type == "Cast" else {}
    nodes = [node(op_type, "last", "y", **attributes), node("Slice", "x starts last", "z")]
    made = FLOAT if op_type == "Cast" else INT64
    model = model_of(nodes, {"x": (4,)}, {"y": (made, None), "z": (FLOAT, None)}, {"last": [LAST], "starts": [0]})
    assert clamped(model) == [op_type]


def test_a_constant_that_nothing_reads_is_not_found() -> None:
    assert clamped(model_of(node("Relu", "x", "y"), {"x": (4,)}, {"y": (FLOAT, None)}, {"unused": [LAST]})) == []


def test_a_constant_node_counts_as_an_initializer_does() -> None:
    tensor = numpy_helper.from_array(np.array([LAST]))
    nodes = [node("Constant", "", "limit", value=tensor), node("Less", "x limit", "y")]
    assert clamped(model_of(nodes, {"x": (INT64, (1,))}, {"y": (BOOL, None)})) == ["Less"]


def test_each_reader_is_named_once() -> None:
    nodes = [node("Greater", "limit limit", "y"), node("Less", "x limit", "z")]
    model = model_of(nodes, {"x": (INT64, (1,))}, {"y": (BOOL, None), "z": (BOOL, None)}, {"limit": [LAST]})
    assert clamped(model) == ["Greater", "Less"]


def test_the_shape_that_a_reshape_reads_is_not_what_it_carries() -> None:
    assert clamped(one("Reshape", (4,), {"shape": [LAST]}, dtype=INT64)) == ["Reshape"]


def test_trips_that_a_condition_ends_may_be_without_bound() -> None:
    body = helper.make_graph(
        [node("Identity", "go", "on"), node("Neg", "was", "is")],
        "body",
        [helper.make_tensor_value_info(*value) for value in (("at", INT64, []), ("go", BOOL, []), ("was", FLOAT, [1]))],
        [helper.make_tensor_value_info(*value) for value in (("on", BOOL, []), ("is", FLOAT, [1]))],
    )
    loop = node("Loop", "trips first x", "y", body=body)
    inputs: dict[str, Any] = {"x": (1,), "first": (BOOL, ())}
    assert clamped(model_of(loop, inputs, {"y": (1,)}, {"trips": np.array(LAST)})) == []


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, LAST, []), (FIRST, 9, []), (FIRST, LAST, []), (2**40, LAST, ["Clip"]), (0, FIRST, ["Clip"])],
)
def test_a_bound_beyond_every_int32_bounds_nothing(low: int, high: int, expected: list[str]) -> None:
    constants = {"low": np.array(low), "high": np.array(high)}
    assert clamped(one("Clip", (3,), constants, dtype=INT64)) == expected


def test_a_constant_in_a_branch_is_seen() -> None:
    def branch(name: str) -> onnx.GraphProto:
        return helper.make_graph(
            [node("Greater", f"x limit_{name}", f"y_{name}", f"Greater_{name}")],
            name,
            [],
            [helper.make_tensor_value_info(f"y_{name}", BOOL, [1])],
            [numpy_helper.from_array(np.array([LAST if name == "then" else 0]), f"limit_{name}")],
        )

    choice = node("If", "c", "y", then_branch=branch("then"), else_branch=branch("else"))
    model = model_of(choice, {"c": (BOOL, ()), "x": (INT64, (1,))}, {"y": (BOOL, (1,))})
    assert clamped(model) == ["Greater_then"]


def test_the_finding_says_what_becomes_of_the_number() -> None:
    (finding,) = [item for item in findings(greater(-(2**40))) if item.rule == "int64-clamped"]
    assert f"{-(2**40)} in limit becomes {-(2**31)}" in finding.why
    assert finding.effect == "wrong result"


@pytest.mark.parametrize(("version", "names"), [("8.2", ["i", "y"]), ("8.6", ["i", "y"]), ("9.0", []), ("10.3", [])])
def test_int64_inputs_and_outputs_are_int32_before_9_0(version: str, names: list[str]) -> None:
    model = model_of(node("Gather", "table i", "y"), {"i": (INT64, (2,))}, {"y": (INT64, None)}, {"table": [1, 2, 3]})
    found = [item for item in findings(model, tensorrt_target(version)) if item.rule == "int64-port"]
    assert [item.node for item in found] == names
    assert all(item.effect == "risky" for item in found)


def test_an_initializer_that_is_declared_as_an_input_is_no_input() -> None:
    model = model_of(
        node("Reshape", "x shape", "y"),
        {"x": (4,), "shape": (INT64, (2,))},
        {"y": (FLOAT, None)},
        {"shape": [2, 2]},
    )
    assert effect(model, "8.2", "int64-port") is None


@pytest.mark.parametrize(
    ("dtype", "fmod", "version", "expected"),
    [
        (FLOAT, 0, "8.5", "refused"),
        (FLOAT, 0, "11.0", "refused"),
        (FLOAT, 1, "8.5", None),
        (INT32, 0, "8.5", None),
        (INT64, 0, "10.3", None),
        (FLOAT, 0, "8.2", None),
    ],
)
def test_mod_of_floats_needs_fmod(dtype: int, fmod: int, version: str, expected: str | None) -> None:
    model = model_of(node("Mod", "x z", "y", fmod=fmod), {"x": (dtype, (4,)), "z": (dtype, (4,))}, {"y": (dtype, None)})
    assert effect(model, version, "mod-of-floats") == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(2**31, ["Mul"]), (2**31 - 1, []), (-(2**31), []), (-(2**31) - 1, ["Mul"])]
)
def test_what_fills_a_shape_is_a_constant_too(value: int, expected: list[str]) -> None:
    filled = numpy_helper.from_array(np.array([value]))
    nodes = [node("ConstantOfShape", "shape", "filled", value=filled), node("Mul", "x filled", "y")]
    model = model_of(nodes, {"x": (INT64, (3,))}, {"y": (INT64, (3,))}, {"shape": [3]})
    assert clamped(model) == expected
