"""Holds the rules of convolutions: dimensions, weights, pads."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.export.linting.graphs import findings, found, model_of, node, tensorrt_target

WEIGHT = np.ones((2, 2, 3, 3), np.float32)


def _conv(op_type: str, dimensions: int) -> onnx.ModelProto:
    weight = np.ones((2, 2, *([2] * dimensions)), np.float32)
    return model_of(node(op_type, "x w", "y"), {"x": (1, 2, *([4] * dimensions))}, {"y": (1, None)}, {"w": weight})


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(("dimensions", "caught"), [(1, False), (2, False), (3, False), (4, True)])
@pytest.mark.parametrize("version", ["8.2.1", "11.0.0"])
def test_dimensions(op_type: str, dimensions: int, caught: bool, version: str) -> None:
    assert ("convolution-dimensions" in found(_conv(op_type, dimensions), tensorrt_target(version))) == caught


def _weighted(*nodes: onnx.NodeProto, inputs: str = "", constants: str = "w") -> onnx.ModelProto:
    conv = node("Conv", "x v" if nodes else "x w", "y")
    taken = {"x": (1, 2, 4, 4), **dict.fromkeys(inputs.split(), WEIGHT.shape)}
    return model_of([*nodes, conv], taken, {"y": (1, None)}, dict.fromkeys(constants.split(), WEIGHT))


TAKEN = _weighted(inputs="w", constants="")
COMPUTED = _weighted(node("Mul", "w w", "v"))
SAME = _weighted(node("Identity", "w", "v"))
FIXED = _weighted()


@pytest.mark.parametrize(
    ("model", "version", "effects"),
    [
        (TAKEN, "8.2.1", ["refused"]),
        (TAKEN, "8.4.1", ["refused"]),
        (TAKEN, "8.5.2", []),
        (COMPUTED, "8.2.1", ["risky"]),
        (COMPUTED, "8.5.2", []),
        (SAME, "8.2.1", []),
        (FIXED, "8.2.1", []),
    ],
)
def test_weights_have_to_be_constant_before_8_5(model: onnx.ModelProto, version: str, effects: list[str]) -> None:
    caught = [
        item.effect for item in findings(model, tensorrt_target(version)) if item.rule == "input-must-be-constant"
    ]
    assert caught == effects


def test_weights_that_are_dequantized_are_accepted() -> None:
    constants = {"q": np.ones((2, 2, 3, 3), np.int8), "s": np.float32(0.1), "z": np.int8(0)}
    nodes = [node("DequantizeLinear", "q s z", "w"), node("Conv", "x w", "y")]
    model = model_of(nodes, {"x": (1, 2, 4, 4)}, {"y": (1, None)}, constants)
    assert "input-must-be-constant" not in found(model)


@pytest.mark.parametrize(("pads", "caught"), [([1, 1, 1, 1], False), ([0, 0, 1, 1], True)])
def test_pads_of_a_deformable_convolution_are_even(pads: list[int], caught: bool) -> None:
    model = model_of(
        node("DeformConv", "x w o", "y", pads=pads),
        {"x": (1, 2, 4, 4), "o": (1, 18, 4, 4)},
        {"y": (1, None)},
        {"w": WEIGHT},
        opset=19,
        ir_version=9,
    )
    assert ("deform-conv-pads" in found(model, tensorrt_target("10.3.0"))) == caught
