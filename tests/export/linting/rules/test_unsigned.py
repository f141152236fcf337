"""Types of the network's inputs and outputs; UINT8 at its edge and inside."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto

from tests.export.linting.graphs import FLOAT, findings, model_of, node, tensorrt_target

UINT8 = TensorProto.UINT8


def names(model: onnx.ModelProto, version: str, rule: str) -> list[str]:
    found = [item for item in findings(model, tensorrt_target(version)) if item.rule == rule]
    assert all(item.effect == "refused" for item in found)
    return [item.node for item in found]


def image(dtype: int) -> onnx.ModelProto:
    return model_of(node("Cast", "x", "y", to=FLOAT), {"x": (dtype, (1, 3, 8, 8))}, {"y": (FLOAT, None)})


@pytest.mark.parametrize(
    ("dtype", "version", "refused"),
    [
        (UINT8, "8.0", True),
        (UINT8, "8.2", True),
        (UINT8, "8.4", True),
        (UINT8, "8.5", False),
        (UINT8, "10.3", False),
        (TensorProto.BFLOAT16, "8.6", True),
        (TensorProto.BFLOAT16, "9.0", False),
        (TensorProto.UINT16, "11.0", True),
        (TensorProto.INT16, "11.0", True),
        (TensorProto.UINT32, "11.0", True),
        (TensorProto.STRING, "11.0", True),
        (FLOAT, "8.0", False),
        (TensorProto.FLOAT16, "8.0", False),
        (TensorProto.INT64, "8.0", False),
        (TensorProto.BOOL, "8.0", False),
        (TensorProto.INT8, "8.0", False),
        (TensorProto.DOUBLE, "8.0", False),
    ],
)
def test_inputs_have_the_types_that_the_version_has(dtype: int, version: str, refused: bool) -> None:
    assert names(image(dtype), version, "port-type") == (["x"] if refused else [])


@pytest.mark.parametrize(("version", "expected"), [("8.4", ["y"]), ("8.5", [])])
def test_outputs_as_well(version: str, expected: list[str]) -> None:
    model = model_of(node("Cast", "x", "y", to=UINT8), {"x": (4,)}, {"y": (UINT8, None)})
    assert names(model, version, "port-type") == expected


@pytest.mark.parametrize(("version", "expected"), [("8.5", ["in", "out"]), ("8.6", []), ("10.3", [])])
def test_8_5_casts_uint8_at_the_edge_only(version: str, expected: list[str]) -> None:
    inside = [node("Cast", "x", "u", "in", to=UINT8), node("Cast", "u", "y", "out", to=FLOAT)]
    assert names(model_of(inside, {"x": (4,)}, {"y": (FLOAT, None)}), version, "uint8-cast") == expected


@pytest.mark.parametrize("version", ["8.5", "8.6"])
def test_casts_at_the_edge_are_taken(version: str) -> None:
    edge = [node("Cast", "x", "f", "in", to=FLOAT), node("Cast", "f", "y", "out", to=UINT8)]
    model = model_of(edge, {"x": (UINT8, (4,))}, {"y": (UINT8, None)})
    assert names(model, version, "uint8-cast") == []
    assert names(model, version, "port-type") == []


def test_an_initializer_that_is_declared_as_an_input_is_no_port() -> None:
    import numpy as np

    model = model_of(
        node("Cast", "w", "y", to=FLOAT), {"w": (UINT8, (2,))}, {"y": (FLOAT, None)}, {"w": np.ones(2, np.uint8)}
    )
    assert names(model, "8.2", "port-type") == []
