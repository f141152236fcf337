"""Holds the rules of nodes in training form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.export.linting.graphs import findings, found, model_of, node, tensorrt_target

BOOL = onnx.TensorProto.BOOL


@pytest.mark.parametrize(
    ("mode", "caught"),
    [
        pytest.param(None, False, id="without"),
        pytest.param(np.array(False), False, id="off"),
        pytest.param(np.array(True), True, id="on"),
        pytest.param("taken", True, id="decided at run time"),
    ],
)
@pytest.mark.parametrize("version", ["8.2.1", "11.0.0"])
def test_dropout_in_training_is_refused(mode: object, caught: bool, version: str) -> None:
    constants: dict[str, Any] = {"r": np.float32(0.5)}
    inputs: dict[str, Any] = {"x": (2, 2)}
    if mode == "taken":
        inputs["t"] = (BOOL, ())
    elif mode is not None:
        constants["t"] = mode
    call = "x r" if mode is None else "x r t"
    model = model_of(node("Dropout", call, "y"), inputs, {"y": (1, None)}, constants)
    assert ("training-mode" in found(model, tensorrt_target(version))) == caught


@pytest.mark.parametrize(
    ("mode", "version", "effects"),
    [
        (1, "8.2.1", ["wrong result"]),
        (1, "9.0.1", ["wrong result"]),
        (1, "9.1.0", ["refused"]),
        (1, "10.3.0", ["refused"]),
        (0, "8.2.1", []),
    ],
)
def test_batch_normalization_in_training(mode: int, version: str, effects: list[str]) -> None:
    model = model_of(
        node("BatchNormalization", "x c c c c", "y m v" if mode else "y", training_mode=mode),
        {"x": (2, 2, 4, 4)},
        {"y": (1, None)},
        {"c": [1.0, 1.0]},
        15,
    )
    caught = [item.effect for item in findings(model, tensorrt_target(version)) if item.rule == "training-mode"]
    assert caught == effects


@pytest.mark.parametrize(("outputs", "caught"), [("y", False), ("y m", True), ("y m v", True)])
def test_layer_normalization_makes_one_output(outputs: str, caught: bool) -> None:
    model = model_of(
        node("LayerNormalization", "x c", outputs), {"x": (2, 2)}, {"y": (1, None)}, {"c": [1.0, 1.0]}, 17, 8
    )
    assert ("layer-norm-outputs" in found(model, tensorrt_target("10.3.0"))) == caught
