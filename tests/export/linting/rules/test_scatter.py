"""Scatter's reductions, and Gather's negative indices."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto

from tests.export.linting.graphs import FLOAT, findings, model_of, node, one, tensorrt_target


def scatter(op_type: str, **attributes: Any) -> onnx.ModelProto:
    indices = [[0]] if op_type == "ScatterND" else [[0, 1, 2, 3, 4]]
    return model_of(
        node(op_type, "x i u", "y", **attributes),
        {"x": (4, 5), "u": (1, 5)},
        {"y": (FLOAT, None)},
        {"i": indices},
        opset=16,
    )


def effect(model: onnx.ModelProto, version: str, rule: str = "scatter-reduction") -> str | None:
    effects = [finding.effect for finding in findings(model, tensorrt_target(version)) if finding.rule == rule]
    assert len(effects) <= 1
    return effects[0] if effects else None


@pytest.mark.parametrize("reduction", ["add", "mul"])
@pytest.mark.parametrize(
    ("version", "elements", "nd"),
    [
        ("8.2", "wrong result", "wrong result"),
        ("8.5", "wrong result", "wrong result"),
        ("8.6", "wrong result", "wrong result"),
        ("9.3", "wrong result", "wrong result"),
        ("10.0", None, "refused"),
        ("10.3", None, "refused"),
        ("11.1", None, "refused"),
    ],
)
def test_a_reduction_is_read_from_10_0_on_and_of_scatter_elements_only(
    reduction: str, version: str, elements: str | None, nd: str
) -> None:
    assert effect(scatter("ScatterElements", reduction=reduction), version) == elements
    assert effect(scatter("ScatterND", reduction=reduction), version) == nd


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("8.2", None),
        ("9.3", None),
        ("10.0", "refused"),
        ("10.6", "refused"),
        ("10.7", "risky"),
        ("10.14", "risky"),
        ("10.15", None),
    ],
)
def test_scatter_nd_with_a_reduction_of_none_is_refused_in_early_10(version: str, expected: str | None) -> None:
    assert effect(scatter("ScatterND", reduction="none"), version) == expected
    assert effect(scatter("ScatterElements", reduction="none"), version) is None


@pytest.mark.parametrize("op_type", ["ScatterElements", "ScatterND"])
@pytest.mark.parametrize("version", ["8.2", "10.3", "11.1"])
def test_a_scatter_without_the_attribute_is_read_as_meant(op_type: str, version: str) -> None:
    assert effect(scatter(op_type), version) is None


def test_where_the_operator_is_unknown_only_that_is_said() -> None:
    model = scatter("ScatterND", reduction="add")
    assert effect(model, "8.0") is None
    assert effect(model, "8.0", "unsupported-operator") == "refused"


def test_the_finding_says_what_becomes_of_the_updates() -> None:
    (finding,) = [item for item in findings(scatter("ScatterND", reduction="add")) if item.rule == "scatter-reduction"]
    assert "replace what is there" in finding.why


@pytest.mark.parametrize("op_type", ["Gather", "GatherElements"])
@pytest.mark.parametrize(
    ("indices", "version", "expected"),
    [
        ([0, -1], "8.0", "wrong result"),
        ([0, 1], "8.0", None),
        ([0, -1], "8.2", None),
        ([0, -1], "10.3", None),
    ],
)
def test_negative_indices_are_read_from_8_2_on(
    op_type: str, indices: list[int], version: str, expected: str | None
) -> None:
    assert effect(one(op_type, (4,), {"i": indices}), version, "gather-negative-index") == expected


def test_indices_that_are_not_known_are_not_judged() -> None:
    model = model_of(node("Gather", "x i", "y"), {"x": (4,), "i": (TensorProto.INT64, (2,))}, {"y": (FLOAT, None)})
    assert effect(model, "8.0", "gather-negative-index") is None
