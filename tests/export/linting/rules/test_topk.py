"""TopK, ArgMax and ArgMin against each version's limits."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto

from tests.export.linting.graphs import FLOAT, Shape, findings, found, model_of, node, tensorrt_target

INT32, INT64 = TensorProto.INT32, TensorProto.INT64


def topk(k: int = 2, dtype: int = FLOAT, opset: int = 13, computed: bool = False, **attributes: Any) -> onnx.ModelProto:
    inputs: dict[str, tuple[int, Shape]] = {"x": (dtype, (4, 8000))}
    if computed:
        inputs["k"] = (INT64, (1,))
    return model_of(
        node("TopK", "x k", "y i", **attributes),
        inputs,
        {"y": (dtype, None), "i": (INT64, None)},
        {} if computed else {"k": [k]},
        opset,
    )


def arg(op_type: str, dtype: int = FLOAT, shape: Shape = (4, 8)) -> onnx.ModelProto:
    return model_of(node(op_type, "x", "y", axis=1), {"x": (dtype, shape)}, {"y": (INT64, None)})


def effect(model: onnx.ModelProto, version: str, rule: str) -> str | None:
    effects = [finding.effect for finding in findings(model, tensorrt_target(version)) if finding.rule == rule]
    assert len(effects) <= 1
    return effects[0] if effects else None


@pytest.mark.parametrize(
    ("version", "expected"),
    [("8.0", "wrong result"), ("8.2", "wrong result"), ("8.4", "wrong result"), ("8.5", None), ("10.3", None)],
)
def test_the_smallest_are_the_largest_before_8_5(version: str, expected: str | None) -> None:
    assert effect(topk(largest=0), version, "topk-smallest") == expected


@pytest.mark.parametrize("attributes", [{}, {"largest": 1}])
def test_the_largest_are_found_in_every_version(attributes: dict[str, Any]) -> None:
    assert effect(topk(**attributes), "8.0", "topk-smallest") is None


@pytest.mark.parametrize(("version", "refused"), [("8.0", True), ("8.2", True), ("8.5", True), ("8.6", False)])
def test_k_of_an_input_came_with_8_6(version: str, refused: bool) -> None:
    assert (effect(topk(computed=True), version, "input-must-be-constant") == "refused") is refused
    assert effect(topk(), version, "input-must-be-constant") is None


@pytest.mark.parametrize(
    ("k", "version", "expected"),
    [
        (3839, "10.1", None),
        (3840, "10.1", "risky"),
        (3840, "10.0", None),
        (3840, "8.2", None),
        (3841, "8.2", "refused"),
        (3841, "10.3", "refused"),
        (4000, "11.0", "refused"),
    ],
)
def test_k_goes_to_3840(k: int, version: str, expected: str | None) -> None:
    assert effect(topk(k), version, "topk-k") == expected


@pytest.mark.parametrize(
    ("attributes", "version", "expected"),
    [
        ({"sorted": 0}, "10.1", "risky"),
        ({"sorted": 0}, "10.0", None),
        ({"sorted": 0}, "8.2", None),
        ({"sorted": 1}, "10.1", None),
        ({}, "10.1", None),
    ],
)
def test_unsorted_is_not_documented_from_10_1_on(
    attributes: dict[str, Any], version: str, expected: str | None
) -> None:
    assert effect(topk(**attributes), version, "topk-sorted") == expected


@pytest.mark.parametrize("dtype", [INT32, INT64])
@pytest.mark.parametrize(
    ("version", "expected"), [("8.2", "refused"), ("8.5", "refused"), ("8.6", None), ("9.3", None)]
)
def test_topk_of_integers_came_with_8_6(dtype: int, version: str, expected: str | None) -> None:
    assert effect(topk(dtype=dtype), version, "topk-integers") == expected


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize(
    ("version", "expected"), [("8.2", "refused"), ("8.6", "risky"), ("9.2", "risky"), ("9.3", None), ("10.3", None)]
)
def test_arguments_of_integers_are_found_in_fp32_until_9_3(op_type: str, version: str, expected: str | None) -> None:
    assert effect(arg(op_type, INT32), version, "topk-integers") == expected
    assert effect(arg(op_type), version, "topk-integers") is None


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize(("version", "expected"), [("8.0", "refused"), ("8.2", "refused"), ("8.4", None)])
def test_open_shapes_of_arguments_came_with_8_4(op_type: str, version: str, expected: str | None) -> None:
    assert effect(arg(op_type, shape=("n", 8)), version, "argmax-open-shape") == expected
    assert effect(arg(op_type), version, "argmax-open-shape") is None


def test_k_is_an_attribute_before_opset_10() -> None:
    model = model_of(
        node("TopK", "x", "y i", k=4000), {"x": (1, 8000)}, {"y": (FLOAT, None), "i": (INT64, None)}, opset=9
    )
    assert "topk-k" in found(model)
    assert "input-must-be-constant" not in found(model)
