"""Pad in each version: axes, modes, amounts, values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.export.linting.graphs import FLOAT, Shape, findings, model_of, node, one, tensorrt_target

MAP: Shape = (1, 3, 8, 8)
PLANE = [0, 0, 1, 1, 0, 0, 1, 1]


def effect(model: onnx.ModelProto, version: str, rule: str) -> str | None:
    effects = [finding.effect for finding in findings(model, tensorrt_target(version)) if finding.rule == rule]
    assert len(effects) <= 1
    return effects[0] if effects else None


def some_axes(axes: list[int], pads: list[int], fill: float | None = None) -> onnx.ModelProto:
    constants: dict[str, Any] = {"pads": pads, "axes": axes}
    if fill is not None:
        constants["fill"] = np.float32(fill)
    inputs = f"x pads {'-' if fill is None else 'fill'} axes"
    return model_of(node("Pad", inputs, "y"), {"x": MAP}, {"y": (FLOAT, None)}, constants, 18)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("8.0", "wrong result"),
        ("8.2", "wrong result"),
        ("8.4", "wrong result"),
        ("8.5", "wrong result"),
        ("8.6", "refused"),
        ("9.3", "refused"),
        ("10.0", None),
        ("10.3", None),
        ("11.1", None),
    ],
)
@pytest.mark.parametrize("axes", [[1], [2], [-1]])
def test_axes_are_ignored_before_8_6_and_refused_until_10_0(
    axes: list[int], version: str, expected: str | None
) -> None:
    assert effect(some_axes(axes, [1, 1]), version, "pad-axes") == expected


@pytest.mark.parametrize(
    ("axes", "fill", "misread"),
    [
        ([0, 1, 2, 3], None, False),
        ([0, 1, -2, -1], 0.0, False),
        ([0, 1, 2, 3], 1.0, True),
        ([3, 2, 1, 0], None, True),
    ],
)
def test_ignored_axes_do_not_matter_where_they_are_all_in_order(
    axes: list[int], fill: float | None, misread: bool
) -> None:
    assert (effect(some_axes(axes, PLANE, fill), "8.2", "pad-axes") is not None) is misread


@pytest.mark.parametrize(("version", "expected"), [("10.0", "refused"), ("10.3", "refused"), ("10.4", None)])
def test_axes_of_an_input_came_with_10_4(version: str, expected: str | None) -> None:
    model = model_of(
        node("Pad", "x pads - axes", "y"),
        {"x": MAP, "axes": (TensorProto.INT64, (1,))},
        {"y": (FLOAT, None)},
        {"pads": [1, 1]},
        19,
    )
    assert effect(model, version, "pad-axes") == expected


def test_pads_for_every_axis_are_read_everywhere() -> None:
    for version in ("8.0", "8.2", "8.6", "10.3"):
        for rule in ("pad-axes", "pad-mode", "pad-negative", "pad-value-type"):
            assert effect(one("Pad", MAP, {"pads": PLANE}), version, rule) is None


@pytest.mark.parametrize(
    ("mode", "version", "expected"),
    [
        ("constant", "8.0", None),
        ("reflect", "8.0", "refused"),
        ("edge", "8.0", "refused"),
        ("reflect", "8.2", None),
        ("edge", "8.2", None),
        ("wrap", "8.0", "refused"),
        ("wrap", "9.3", "refused"),
        ("wrap", "10.0", None),
    ],
)
def test_modes_came_one_by_one(mode: str, version: str, expected: str | None) -> None:
    assert effect(one("Pad", MAP, {"pads": PLANE}, 19, mode=mode), version, "pad-mode") == expected


@pytest.mark.parametrize(
    ("constants", "refused"),
    [
        pytest.param({"pads": PLANE}, False, id="zeros over two dimensions"),
        pytest.param({"pads": PLANE, "fill": np.float32(0)}, False, id="zeros that are stated"),
        pytest.param({"pads": [0, 1, 0, 1, 0, 0, 0, 0]}, False, id="any two dimensions"),
        pytest.param({"pads": [0, 1, 1, 1, 0, 0, 0, 0]}, True, id="three dimensions"),
        pytest.param({"pads": PLANE, "fill": np.float32(1)}, True, id="ones"),
        pytest.param({"pads": [0] * 8, "fill": np.float32(1)}, False, id="nothing to pad"),
    ],
)
def test_8_0_pads_two_dimensions_with_zeros(constants: dict[str, Any], refused: bool) -> None:
    assert (effect(one("Pad", MAP, constants), "8.0", "pad-mode") == "refused") is refused
    assert effect(one("Pad", MAP, constants), "8.2", "pad-mode") is None


def test_8_0_reads_pads_of_an_initializer_only() -> None:
    model = model_of(node("Pad", "x pads", "y"), {"x": MAP, "pads": (TensorProto.INT64, (8,))}, {"y": (FLOAT, None)})
    assert effect(model, "8.0", "pad-mode") == "refused"
    assert effect(model, "8.2", "pad-mode") is None


@pytest.mark.parametrize(
    ("version", "expected"), [("8.0", None), ("8.2", "refused"), ("10.6", "refused"), ("10.7", None), ("11.0", None)]
)
def test_negative_pads_are_refused_from_8_2_to_10_6(version: str, expected: str | None) -> None:
    assert effect(one("Pad", MAP, {"pads": [0, 0, -1, 0, 0, 0, 0, 0]}), version, "pad-negative") == expected


@pytest.mark.parametrize(
    ("dtype", "fill", "version", "expected"),
    [
        (TensorProto.INT32, 7, "8.2", "wrong result"),
        (TensorProto.INT32, 0, "8.2", None),
        (TensorProto.INT32, 7, "8.4", None),
        (FLOAT, 7, "8.2", None),
    ],
)
def test_an_integer_to_pad_with_is_read_as_fp32_bits_in_8_2(
    dtype: int, fill: int, version: str, expected: str | None
) -> None:
    value = np.array(fill, onnx.helper.tensor_dtype_to_np_dtype(dtype))
    model = one("Pad", MAP, {"pads": PLANE, "fill": value}, dtype=dtype)
    assert effect(model, version, "pad-value-type") == expected


def test_an_integers_bits_are_a_number_next_to_zero_in_fp32() -> None:
    assert int(np.array([7], np.int32).view(np.float32)[0]) == 0


def test_pads_are_attributes_before_opset_11() -> None:
    model = one("Pad", MAP, opset=10, pads=PLANE, value=1.0)
    assert effect(model, "8.0", "pad-mode") == "refused"
    assert effect(one("Pad", MAP, opset=10, pads=PLANE), "8.0", "pad-mode") is None
    assert effect(model, "8.2", "pad-mode") is None


def computed_pads(first: list[int], shape: Any = (4, 2)) -> onnx.ModelProto:
    """The pads as torch exports them: last axis first, filled up with zeros, then turned round."""
    nodes = [
        node("ConstantOfShape", "missing", "zeros", value=onnx.numpy_helper.from_array(np.array([0]))),
        node("Concat", "first zeros", "all", axis=0),
        node("Reshape", "all pairs", "table"),
        node("Slice", "table last least axis back", "turned"),
        node("Transpose", "turned", "halves", perm=[1, 0]),
        node("Reshape", "halves flat", "pads"),
        node("Pad", "x pads", "y"),
    ]
    numbers = {"missing": [4], "first": first, "pairs": [-1, 2], "last": [-1], "least": [-(2**63)], "axis": [0]}
    return model_of(nodes, {"x": MAP}, {"y": (FLOAT, None)}, {**numbers, "back": [-1], "flat": [-1]})


@pytest.mark.parametrize(("first", "expected"), [([1, -1, 2, 0], "refused"), ([1, 1, 2, 0], None)])
def test_negative_pads_are_seen_behind_the_nodes_that_turn_them_round(first: list[int], expected: str | None) -> None:
    assert effect(computed_pads(first), "8.2", "pad-negative") == expected


def test_pads_that_an_input_decides_are_not_known() -> None:
    nodes = [node("Neg", "p", "pads"), node("Pad", "x pads", "y")]
    model = model_of(nodes, {"x": MAP, "p": (TensorProto.INT64, (8,))}, {"y": (FLOAT, None)})
    assert effect(model, "8.2", "pad-negative") is None
