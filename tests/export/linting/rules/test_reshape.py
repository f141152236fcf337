"""Reshape's allowzero, and Shape of some axes."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto

from tests.export.linting.graphs import findings, model_of, node, one, tensorrt_target

INT64 = TensorProto.INT64


def effect(model: onnx.ModelProto, version: str, rule: str) -> str | None:
    effects = [finding.effect for finding in findings(model, tensorrt_target(version)) if finding.rule == rule]
    assert len(effects) <= 1
    return effects[0] if effects else None


def reshape(opset: int, shape: tuple[int, ...] = (2, -1), **attributes: Any) -> onnx.ModelProto:
    return one("Reshape", (4, 6), {"shape": list(shape)}, opset, **attributes)


@pytest.mark.parametrize(
    ("version", "expected"), [("8.0", "refused"), ("8.2", "refused"), ("8.4", None), ("8.5", None), ("10.3", None)]
)
@pytest.mark.parametrize("opset", [14, 17, 19])
def test_reshape_without_allowzero_is_refused_from_opset_14_on_before_8_4(
    opset: int, version: str, expected: str | None
) -> None:
    assert effect(reshape(opset), version, "reshape-allowzero") == expected


@pytest.mark.parametrize("version", ["8.0", "8.2"])
def test_opset_13_has_no_allowzero_to_ask_for(version: str) -> None:
    assert effect(reshape(13), version, "reshape-allowzero") is None


@pytest.mark.parametrize("allowzero", [0, 1])
@pytest.mark.parametrize("version", ["8.0", "8.2"])
def test_a_stated_allowzero_is_read(version: str, allowzero: int) -> None:
    assert effect(reshape(14, allowzero=allowzero), version, "reshape-allowzero") is None


@pytest.mark.parametrize(
    ("version", "shape", "allowzero", "expected"),
    [
        ("8.4", (0, -1), 1, "risky"),
        ("8.4", (2, -1), 1, None),
        ("8.4", (0, -1), 0, None),
        ("8.5", (0, -1), 1, None),
        ("8.2", (0, -1), 1, None),
    ],
)
def test_a_literal_zero_is_risky_in_8_4_alone(
    version: str, shape: tuple[int, ...], allowzero: int, expected: str | None
) -> None:
    assert effect(reshape(14, shape, allowzero=allowzero), version, "reshape-allowzero") == expected


def shape_of(given: tuple[int | str, ...] = (2, 3, 4, 5), **attributes: Any) -> onnx.ModelProto:
    return model_of(node("Shape", "x", "y", **attributes), {"x": given}, {"y": (INT64, None)}, opset=15)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("8.2", "wrong result"), ("8.6", "wrong result"), ("9.0", "risky"), ("10.0", "risky"), ("10.1", None)],
)
def test_start_and_end_of_shape_are_ignored_up_to_8_6(version: str, expected: str | None) -> None:
    assert effect(shape_of(start=1, end=3), version, "shape-start-end") == expected


@pytest.mark.parametrize(
    ("attributes", "sliced"),
    [
        ({}, False),
        ({"start": 0}, False),
        ({"start": 0, "end": 4}, False),
        ({"start": -4, "end": 99}, False),
        ({"start": -9}, False),
        ({"start": 1}, True),
        ({"end": -1}, True),
        ({"start": 2, "end": 2}, True),
    ],
)
def test_a_slice_of_the_whole_shape_is_no_slice(attributes: dict[str, Any], sliced: bool) -> None:
    assert (effect(shape_of(**attributes), "8.2", "shape-start-end") is not None) is sliced
