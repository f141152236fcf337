"""Holds the rules of Resize and GridSample at each version's boundary."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from tests.export.linting.graphs import findings, found, model_of, node, tensorrt_target

SCALES = [1.0, 1.0, 2.0, 2.0]


def _resize(scales: list[float] | None = None, opset: int = 13, **attributes: Any) -> onnx.ModelProto:
    return model_of(
        node("Resize", "x - s", "y", **attributes),
        {"x": (1, 2, 4, 4)},
        {"y": (1, None)},
        {"s": scales or SCALES},
        opset,
    )


@pytest.mark.parametrize(
    ("model", "version", "caught"),
    [
        (_resize(mode="linear"), "8.0.1", False),
        (_resize(mode="nearest", nearest_mode="floor"), "8.2.1", False),
        (_resize(mode="cubic"), "8.4.1", True),
        (_resize(mode="cubic"), "8.5.2", False),
        (_resize(mode="linear", coordinate_transformation_mode="tf_crop_and_resize"), "8.2.1", True),
        (_resize(mode="linear", coordinate_transformation_mode="tf_crop_and_resize"), "11.0.0", True),
        (_resize(mode="linear", coordinate_transformation_mode="align_corners"), "8.2.1", False),
        (_resize(coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="floor"), "8.2.1", True),
        (_resize(coordinate_transformation_mode="tf_half_pixel_for_nn"), "8.2.1", False),
        (_resize([2.0, 2.0, 2.0, 2.0], mode="linear"), "8.2.1", True),
        (_resize([1.0, 2.0, 2.0, 2.0], mode="linear"), "8.2.1", False),
        (_resize([1.0, 2.0, 2.0, 2.0], mode="cubic"), "10.3.0", True),
        (_resize([2.0, 2.0, 2.0, 2.0], mode="nearest"), "8.2.1", False),
    ],
)
def test_modes_that_a_version_does_not_have(model: onnx.ModelProto, version: str, caught: bool) -> None:
    assert ("resize-mode" in found(model, tensorrt_target(version))) == caught


@pytest.mark.parametrize(
    ("version", "effect"), [("8.2.1", "wrong result"), ("9.3.0", "wrong result"), ("10.0.0", "refused")]
)
@pytest.mark.parametrize("attributes", [{"antialias": 1}, {"keep_aspect_ratio_policy": "not_larger"}])
def test_attributes_of_opset_18_are_ignored_before_they_are_refused(
    attributes: dict[str, Any], version: str, effect: str
) -> None:
    model = _resize(opset=18, mode="linear", **attributes)
    caught = [item.effect for item in findings(model, tensorrt_target(version)) if item.rule == "resize-attribute"]
    assert caught == [effect]
    plain = _resize(opset=18, mode="linear", antialias=0, keep_aspect_ratio_policy="stretch")
    assert "resize-attribute" not in found(plain, tensorrt_target(version))


@pytest.mark.parametrize(
    ("axes", "scales", "version", "caught"),
    [
        ([2, 3], [2.0, 2.0], "8.6.2", True),
        ([2, 3], [2.0, 2.0], "10.0.0", False),
        ([0, 1, 2, 3], SCALES, "8.6.2", False),
    ],
)
def test_axes_are_refused_before_10(axes: list[int], scales: list[float], version: str, caught: bool) -> None:
    model = _resize(scales, 18, mode="linear", axes=axes)
    assert ("resize-mode" in found(model, tensorrt_target(version))) == caught


def _scales_from(*nodes: onnx.NodeProto, inputs: dict[str, Any], constants: dict[str, Any]) -> onnx.ModelProto:
    last = node("Resize", "x - s", "y", mode="linear")
    return model_of([*nodes, last], {"x": (1, 2, 4, 4), **inputs}, {"y": (1, None)}, constants)


TAKEN = _scales_from(inputs={"s": (4,)}, constants={})
COMPUTED = _scales_from(node("Mul", "a b", "s"), inputs={}, constants={"a": SCALES, "b": SCALES})


@pytest.mark.parametrize(
    ("model", "version", "effects"),
    [
        (TAKEN, "8.2.1", ["refused"]),
        (TAKEN, "10.3.0", ["refused"]),
        (COMPUTED, "8.2.1", ["risky"]),
        (COMPUTED, "8.4.1", []),
        (_resize(), "8.2.1", []),
    ],
)
def test_scales_have_to_be_known(model: onnx.ModelProto, version: str, effects: list[str]) -> None:
    caught = [
        item.effect for item in findings(model, tensorrt_target(version)) if item.rule == "input-must-be-constant"
    ]
    assert caught == effects


def test_sizes_may_be_computed() -> None:
    model = model_of(
        node("Resize", "x - - z", "y", mode="linear"),
        {"x": (1, 2, 4, 4), "z": (onnx.TensorProto.INT64, (4,))},
        {"y": (1, None)},
    )
    assert "input-must-be-constant" not in found(model)


@pytest.mark.parametrize(
    ("shape", "version", "caught"),
    [((1, 1, 4, 4, 4), "10.3.0", True), ((1, 1, 4, 4, 4), "10.15.0", False), ((1, 1, 4, 4), "8.5.2", False)],
)
def test_grid_sample_is_2d(shape: tuple[int, ...], version: str, caught: bool) -> None:
    grid = (1, *shape[2:], len(shape) - 2)
    model = model_of(node("GridSample", "x g", "y"), {"x": shape, "g": grid}, {"y": (1, None)}, opset=20, ir_version=9)
    assert ("grid-sample-rank" in found(model, tensorrt_target(version))) == caught
