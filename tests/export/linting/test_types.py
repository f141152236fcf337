"""Types that TensorRT lacks, lowers, or does not compute an operator in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.export.linting.graphs import findings, found, model_of, node, one, tensorrt_target

SHAPE = (2, 4)


def between(operator: str, kind: int, **attributes: object) -> onnx.ModelProto:
    """An operator in this type, with Casts from and to FP32 around it."""
    return model_of(
        [
            node("Cast", "x", "a", to=kind),
            node(operator, "a", "b", "middle", **attributes),
            node("Cast", "b", "y", to=TensorProto.FLOAT),
        ],
        {"x": SHAPE},
        {"y": SHAPE},
        opset=19,
        ir_version=9,
    )


def of_type(model: onnx.ModelProto, version: str) -> list[tuple[str, str]]:
    """The nodes that the rule names, with the effect."""
    return [(item.node, item.effect) for item in findings(model, tensorrt_target(version)) if item.rule == "type"]


@pytest.mark.parametrize(
    ("kind", "version", "effect"),
    [
        (TensorProto.DOUBLE, "8.2", "risky"),
        (TensorProto.DOUBLE, "10.3", "risky"),
        (TensorProto.INT16, "8.2", "refused"),
        (TensorProto.INT16, "11.1", "refused"),
        (TensorProto.UINT16, "10.3", "refused"),
        (TensorProto.UINT32, "10.3", "refused"),
        (TensorProto.UINT64, "10.3", "refused"),
        (TensorProto.COMPLEX64, "10.3", "refused"),
        (TensorProto.FLOAT8E5M2, "10.3", "refused"),
        (TensorProto.STRING, "10.3", "refused"),
        (TensorProto.UINT8, "8.2", "refused"),
        (TensorProto.UINT8, "10.3", "refused"),
        (TensorProto.BFLOAT16, "8.6", "refused"),
        (TensorProto.INT8, "8.2", "refused"),
    ],
)
def test_a_type_that_it_does_not_compute_in_is_found(kind: int, version: str, effect: str) -> None:
    assert ("middle", effect) in of_type(between("Abs", kind), version)


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        (TensorProto.FLOAT, "8.2"),
        (TensorProto.FLOAT16, "8.2"),
        (TensorProto.INT32, "8.2"),
        (TensorProto.INT64, "8.2"),  # made INT32 by the parser; a rule of its own says where that clamps
        (TensorProto.BFLOAT16, "10.3"),
    ],
)
def test_a_type_that_it_has_is_not(kind: int, version: str) -> None:
    assert of_type(between("Abs", kind), version) == []


def test_a_type_is_judged_by_what_its_operator_is_documented_for() -> None:
    assert of_type(between("Mish", TensorProto.BFLOAT16), "10.15") == [("middle", "refused")]
    assert of_type(between("Identity", TensorProto.INT8), "8.2") == []


@pytest.mark.parametrize("version", ["8.2", "8.5", "10.3", "11.1"])
def test_indices_shapes_and_booleans_raise_no_alarm(version: str) -> None:
    model = model_of(
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n", axis=0),
            node("Unsqueeze", "n zeros", "u"),
            node("Concat", "u rest", "t", axis=0),
            node("Reshape", "x t", "r"),
            node("Gather", "r places", "g", "pick", axis=0),
            node("Greater", "g limit", "m"),
            node("Where", "m g limit", "y"),
        ],
        {"x": SHAPE},
        {"y": (TensorProto.FLOAT, None)},
        {
            "zero": np.array(0, np.int64),
            "zeros": [0],
            "rest": [-1],
            "places": [0, 1],
            "limit": np.array(0.5, np.float32),
        },
    )
    assert of_type(model, version) == []


def test_what_is_quantised_may_pass_on_int8() -> None:
    scale, point = np.float32(0.1), np.array(0, np.int8)
    model = model_of(
        [
            node("QuantizeLinear", "x s p", "q"),
            node("Relu", "q", "r"),
            node("DequantizeLinear", "r s p", "y"),
        ],
        {"x": SHAPE},
        {"y": SHAPE},
        {"s": scale, "p": point},
        opset=14,
    )
    assert of_type(model, "10.3") == []


def test_an_8_bit_input_of_the_network_may_be_cast_where_the_parser_has_the_type() -> None:
    model = model_of(node("Cast", "x", "y", to=TensorProto.FLOAT), {"x": (TensorProto.UINT8, SHAPE)}, {"y": SHAPE})
    assert of_type(model, "8.5") == []
    assert found(model, tensorrt_target("8.5")) == []
    assert found(model, "jetson-nano") == ["port-type"]  # the input is named once, not its readers too


def test_the_finding_names_tensor_type_and_remedy() -> None:
    found_here = findings(one("Abs", SHAPE, dtype=TensorProto.DOUBLE), "jetson-nano")
    assert [item.rule for item in found_here] == ["type"]
    assert "DOUBLE" in found_here[0].why
    assert "float32" in found_here[0].remedy
