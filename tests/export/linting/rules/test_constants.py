"""Holds what the parsers must know while they read, and the forms of Constant that they misread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

from tests.export.linting.graphs import FLOAT, findings, found, model_of, node, one, tensorrt_target

INT64 = onnx.TensorProto.INT64
RULE = "input-must-be-constant"
# Operator -> the call, what else it takes, and its opset; `a` is the input in question.
CALLS: Mapping[str, tuple[str, Mapping[str, Any], int]] = {
    "CumSum": ("x a", {}, 13),
    "OneHot": ("i a v", {"v": [0.0, 1.0]}, 13),
    "ReduceMax": ("x a", {}, 18),
    "ReduceSum": ("x a", {}, 13),
    "Slice": ("x s e a", {"s": [0], "e": [1]}, 13),
    "Split": ("x a", {}, 13),
    "Squeeze": ("x a", {}, 13),
    "Unsqueeze": ("x a", {}, 13),
}
# From here on the builder folds what nodes compute from constants.
FOLDED: Mapping[str, tuple[int, ...]] = {"CumSum": (10, 8), "OneHot": (8, 5), "Squeeze": (10, 7), "Unsqueeze": (10, 7)}


def _call(op_type: str, origin: str) -> onnx.ModelProto:
    """A node whose input `a` is a constant, computed from constants or a shape, or a graph input."""
    call, constants, opset = CALLS[op_type]
    inputs: dict[str, Any] = {"x": (1, 4), "i": (INT64, (4,))}
    nodes = [node(op_type, call, "y")]
    constants = dict(constants)
    if origin == "input":
        inputs["a"] = (INT64, (1,))
    elif origin == "constant":
        constants["a"] = [0]
    elif origin == "node":
        nodes.insert(0, node("Constant", "", "a", value=onnx.numpy_helper.from_array(np.array([0]))))
    elif origin == "same":
        nodes.insert(0, node("Identity", "b", "a"))
        constants["b"] = [0]
    elif origin == "computed":
        nodes.insert(0, node("Sub", "b b", "a"))
        constants["b"] = [0]
    else:
        nodes[:0] = [node("Shape", "x", "h"), node("Slice", "h z o", "a", "cut")]
        constants.update(z=[0], o=[1])
    return model_of(nodes, inputs, {"y": (1, None)}, constants, opset, 9)


def _effects(model: onnx.ModelProto, version: str, op_type: str) -> list[str]:
    return [
        item.effect for item in findings(model, tensorrt_target(version)) if item.rule == RULE and item.node == op_type
    ]


@pytest.mark.parametrize(
    ("op_type", "version", "needed"),
    [
        ("CumSum", "8.2.1", True),
        ("CumSum", "10.3.0", True),
        ("CumSum", "10.8.0", True),
        ("OneHot", "8.5.2", True),
        ("ReduceMax", "8.6.2", False),
        ("ReduceMax", "10.0.0", True),
        ("ReduceSum", "8.2.1", True),
        ("Slice", "8.2.1", True),
        ("Slice", "10.2.0", True),
        ("Slice", "10.3.0", False),
        ("Split", "8.0.1", True),
        ("Split", "8.2.1", False),
        ("Squeeze", "8.2.1", True),
        ("Squeeze", "10.6.0", True),
        ("Squeeze", "10.7.0", True),
        ("Unsqueeze", "11.0.0", True),
    ],
)
def test_an_input_that_has_to_be_known(op_type: str, version: str, needed: bool) -> None:
    assert _effects(_call(op_type, "input"), version, op_type) == (["refused"] if needed else [])
    folded = FOLDED.get(op_type, (99,)) <= tuple(map(int, version.split(".")))
    for origin in ("computed", "shape"):
        assert _effects(_call(op_type, origin), version, op_type) == (["risky"] if needed and not folded else [])
    for origin in ("constant", "node", "same"):
        assert _effects(_call(op_type, origin), version, op_type) == []


@pytest.mark.parametrize(("version", "caught"), [("8.4.1", 1), ("8.5.2", 0)])
def test_the_thresholds_of_a_non_maximum_suppression(version: str, caught: int) -> None:
    inputs: dict[str, Any] = {"b": (1, 6, 4), "s": (1, 1, 6), "m": (INT64, (1,))}
    model = model_of(node("NonMaxSuppression", "b s m", "y"), inputs, {"y": (INT64, None)})
    assert found(model, tensorrt_target(version)).count(RULE) == caught


def _constant(**attributes: Any) -> onnx.ModelProto:
    nodes = [node("Constant", "", "c", **attributes), node("Identity", "c", "y")]
    return model_of(nodes, {"x": (1,)}, {"y": (INT64, None)})


@pytest.mark.parametrize(
    ("attributes", "version", "caught"),
    [
        ({"value_int": 3}, "8.2.1", True),
        ({"value_ints": [3, 4]}, "8.5.2", True),
        ({"value_int": 3}, "8.6.2", False),
        ({"value_float": 3.0}, "8.2.1", False),
        ({"value": onnx.numpy_helper.from_array(np.array(3))}, "8.2.1", False),
    ],
)
def test_integer_attributes_of_a_constant_become_zero_before_8_6(
    attributes: dict[str, Any], version: str, caught: bool
) -> None:
    wrong = [item for item in findings(_constant(**attributes), tensorrt_target(version)) if item.is_error]
    assert ("constant-value-int" in [item.rule for item in wrong]) == caught


@pytest.mark.parametrize("version", ["8.2.1", "11.0.0"])
def test_strings_and_sparse_constants_are_refused(version: str) -> None:
    text = _constant(value_string="s")
    assert "constant-form" in found(text, tensorrt_target(version))
    sparse = onnx.helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(np.ones(1, np.float32)), onnx.numpy_helper.from_array(np.array([0])), [3]
    )
    assert "constant-form" in found(_constant(sparse_value=sparse), tensorrt_target(version))
    assert "constant-form" not in found(_constant(value_float=1.0), tensorrt_target(version))


def _range(kind: int, origin: str) -> onnx.ModelProto:
    inputs = dict.fromkeys("abc", (kind, ())) if origin == "input" else {"x": (kind, (3,))}
    nodes = [node("Range", "a b c", "y")]
    dtype = np.float32 if kind == 1 else np.int64
    constants = {} if origin == "input" else {name: np.array(index, dtype) for index, name in enumerate("abc")}
    if origin == "computed":
        constants["d"] = constants.pop("b")
        nodes.insert(0, node("Mul", "d d", "b"))
    return model_of(nodes, inputs, {"y": (kind, None)}, constants)


@pytest.mark.parametrize(
    ("kind", "origin", "version", "caught"),
    [
        (1, "input", "8.2.1", True),
        (1, "input", "11.0.0", True),
        (1, "computed", "8.2.1", True),
        (1, "computed", "8.4.1", False),
        (1, "constant", "8.2.1", False),
        (INT64, "input", "8.2.1", False),
    ],
)
def test_a_range_of_floats(kind: int, origin: str, version: str, caught: bool) -> None:
    assert ("range-of-floats" in found(_range(kind, origin), tensorrt_target(version))) == caught


@pytest.mark.parametrize(
    ("model", "version", "caught"),
    [
        (one("EyeLike", (4, 4)), "8.2.1", False),
        (one("EyeLike", ("n", 4)), "8.2.1", True),
        (one("EyeLike", ("n", 4)), "11.0.0", True),
        (one("Hardmax", (2, "n")), "10.3.0", True),
        (one("Hardmax", ("n", 4)), "10.3.0", False),
        (one("Hardmax", (2, "n")), "11.0.0", False),
        (one("ReverseSequence", (4, "n"), {"l": [1, 2]}), "8.5.2", True),
        (one("ReverseSequence", (4, 2), {"l": [1, 2]}), "8.5.2", False),
        (one("ReverseSequence", (4, "n"), {"l": [1, 2]}), "8.6.2", False),
    ],
)
def test_extents_that_have_to_be_known(model: onnx.ModelProto, version: str, caught: bool) -> None:
    assert ("shape-must-be-known" in found(model, tensorrt_target(version))) == caught


def test_a_sparse_initializer_is_refused_and_a_dense_one_is_not() -> None:
    model = model_of(node("Add", "x w", "y"), {"x": (4,)}, {"y": (FLOAT, None)}, {"w": [1.0, 0.0, 0.0, 0.0]})
    assert "constant-form" not in found(model, "jetson-orin-nano")
    values = onnx.helper.make_tensor("w", FLOAT, [1], [1.0])
    sparse = onnx.helper.make_sparse_tensor(
        values, onnx.helper.make_tensor("at", onnx.TensorProto.INT64, [1], [0]), [4]
    )
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(sparse)
    (finding,) = [item for item in findings(model, "jetson-orin-nano") if item.rule == "constant-form"]
    assert (finding.node, finding.effect) == ("w", "refused")


@pytest.mark.parametrize(("op_type", "effect"), [("Size", "risky"), ("Shape", "risky"), ("Cast", "refused")])
def test_what_depends_on_a_shape_only_is_no_matter_of_an_inputs_values(op_type: str, effect: str) -> None:
    attributes: dict[str, Any] = {"to": onnx.TensorProto.INT64} if op_type == "Cast" else {}
    nodes = [
        node(op_type, "p", "count", None, **attributes),
        node("Reshape", "count one", "axes"),
        node("ReduceSum", "x axes", "y"),
    ]
    model = model_of(nodes, {"x": (2, 3), "p": (1,)}, {"y": (FLOAT, None)}, {"one": [1]})
    effects = [
        item.effect for item in findings(model) if item.rule == "input-must-be-constant" and item.node == "ReduceSum"
    ]
    assert effects == [effect]
