"""Holds the rules of types: what a Cast may make, and FP16 graphs before 8.4."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.export.linting.graphs import findings, found, model_of, node, one, tensorrt_target


@pytest.mark.parametrize(
    ("to", "version", "caught"),
    [
        ("FLOAT16", "8.2.1", False),
        ("DOUBLE", "8.2.1", False),
        ("INT64", "8.2.1", False),
        ("UINT8", "8.4.1", True),
        ("UINT8", "8.5.2", False),
        ("BFLOAT16", "8.6.2", True),
        ("BFLOAT16", "10.3.0", False),
        ("INT16", "11.0.0", True),
        ("STRING", "11.0.0", True),
    ],
)
def test_types_that_a_cast_may_make(to: str, version: str, caught: bool) -> None:
    model = one("Cast", (2, 2), to=TensorProto.DataType.Value(to))
    assert ("cast-type" in found(model, tensorrt_target(version))) == caught


@pytest.mark.parametrize(("version", "effects"), [("8.2.1", ["risky"]), ("8.4.1", [])])
@pytest.mark.parametrize("form", ["weights", "casts"])
def test_a_typed_graph_is_not_for_versions_before_8_4(form: str, version: str, effects: list[str]) -> None:
    if form == "weights":
        half = TensorProto.FLOAT16
        model = model_of(
            node("Mul", "x w", "y"), {"x": (half, (2,))}, {"y": (half, None)}, {"w": np.ones(2, np.float16)}
        )
    else:
        model = one("Cast", (2, 2), to=TensorProto.FLOAT16)
    caught = [item.effect for item in findings(model, tensorrt_target(version)) if item.rule == "typed-half-graph"]
    assert caught == effects


def test_a_typed_graph_with_its_plan_is_for_every_version() -> None:
    model = one("Cast", (2, 2), to=TensorProto.FLOAT16)
    assert "typed-half-graph" not in found(model, tensorrt_target("8.2.1"), frozenset())


def test_an_fp32_graph_is_for_every_version() -> None:
    assert "typed-half-graph" not in found(one("Relu", (2, 2)), tensorrt_target("8.2.1"))
