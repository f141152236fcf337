"""Holds the rules of Clip and Celu at each version's boundary."""

from __future__ import annotations

import onnx
import pytest

from tests.export.linting.graphs import findings, found, model_of, node, one, tensorrt_target

FLOAT, HALF, INT32 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT32


def _bounds(model: onnx.ModelProto, version: str) -> list[str]:
    return [
        item.effect
        for item in findings(model, tensorrt_target(version))
        if item.rule in ("clip-bounds", "input-must-be-constant")
    ]


@pytest.mark.parametrize(
    ("kind", "version", "effects"),
    [
        (FLOAT, "8.0.1", ["refused"]),
        (FLOAT, "8.2.1", []),
        (INT32, "8.2.1", []),
        (HALF, "8.2.1", ["refused"]),
        (HALF, "8.4.1", ["refused"]),
        (HALF, "8.5.2", []),
    ],
)
def test_bounds_that_are_computed(kind: int, version: str, effects: list[str]) -> None:
    model = model_of(node("Clip", "x a", "y"), {"x": (kind, (2, 2)), "a": (kind, ())}, {"y": (kind, None)})
    assert _bounds(model, version) == effects


@pytest.mark.parametrize("version", ["8.0.1", "8.2.1"])
def test_bounds_that_are_constant_are_accepted(version: str) -> None:
    model = model_of(node("Clip", "x - b", "y"), {"x": (2, 2)}, {"y": (1, None)}, {"b": 6.0})
    assert _bounds(model, version) == []


@pytest.mark.parametrize(("version", "caught"), [("8.0.1", True), ("8.2.1", True), ("8.4.1", False)])
def test_celu_is_computed_wrongly_before_8_4(version: str, caught: bool) -> None:
    assert ("celu" in found(one("Celu", (2, 2)), tensorrt_target(version))) == caught
    assert "celu" not in found(one("Elu", (2, 2)), tensorrt_target(version))
