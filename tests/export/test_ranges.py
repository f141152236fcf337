"""Holds that ranges are the exact largest magnitudes of every FP32 tensor, weights and ends included."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest

from deploy_attn.export.ranges import tensor_ranges

GRAPH = """<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 2] x) => (float[batch, 2] y, int64[batch] place)
<float[2] w = {-3.0, 2.0}, float unused = {9.0}, int64[2] whole = {70000, 1}> {
  scaled = Mul(x, w)
  shifted = Add(scaled, w)
  y = Relu(shifted)
  place = ArgMax<axis = 1, keepdims = 0>(y)
}"""


def _ranges(text: str, *feeds: dict[str, list[Any]]) -> dict[str, float]:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    arrays = [{name: np.array(values, np.float32) for name, values in feed.items()} for feed in feeds]
    return tensor_ranges(model, arrays)


def test_maxima_are_exact_for_inputs_weights_intermediates_and_outputs() -> None:
    assert _ranges(GRAPH, {"x": [[1.5, -0.25], [-2.0, 4.0]]}) == {
        "x": 4.0,
        "w": 3.0,
        "unused": 9.0,
        "scaled": 8.0,  # 4 * 2
        "shifted": 10.0,  # 4 * 2 + 2
        "y": 10.0,
    }


def test_negative_values_count_by_their_magnitude() -> None:
    ranges = _ranges(GRAPH, {"x": [[5.0, 0.0]]})
    assert (ranges["scaled"], ranges["shifted"], ranges["y"]) == (15.0, 18.0, 2.0)


def test_the_largest_of_several_feeds_counts_tensor_by_tensor() -> None:
    ranges = _ranges(GRAPH, {"x": [[5.0, 0.0]]}, {"x": [[0.0, 6.0], [0.0, 0.0]]}, {"x": [[0.0, 0.0]]})
    assert (ranges["x"], ranges["scaled"], ranges["shifted"], ranges["y"]) == (6.0, 15.0, 18.0, 14.0)


def test_integer_tensors_have_no_range() -> None:
    assert not {"place", "whole"} & set(_ranges(GRAPH, {"x": [[1.0, 1.0]]}))


def test_without_feeds_only_the_weights_are_known() -> None:
    assert _ranges(GRAPH) == {"w": 3.0, "unused": 9.0}


@pytest.mark.parametrize(
    ("body", "reaches"),
    [
        pytest.param("t = Div(x, zero)", math.inf, id="division by zero"),
        pytest.param("t = Neg(huge)", math.inf, id="an infinite weight"),
        pytest.param("t = Sqrt(x)", math.inf, id="NaN"),
        pytest.param("t = Mul(x, large)", math.inf, id="beyond FP32"),
        pytest.param("t = Mul(x, minus)", 4.0, id="a number"),
    ],
)
def test_what_is_not_finite_is_reported_as_infinite(body: str, reaches: float) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y)'
        "<float zero = {0.0}, float minus = {-1.0}, float large = {3e38}, float[2] huge = {0.0, 0.0}>"
        f"{{ {body} y = Relu(t) }}"
    )
    infinite = onnx.numpy_helper.from_array(np.array([-np.inf, 0], np.float32), "huge")
    model.graph.initializer[3].CopyFrom(infinite)
    ranges = tensor_ranges(model, [{"x": np.array([4.0, -1.0], np.float32)}])
    assert ranges["t"] == reaches
    assert ranges["huge"] == math.inf


def test_an_empty_tensor_has_the_range_zero() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Relu(x) }'
    assert _ranges(text, {"x": []}) == {"x": 0.0, "y": 0.0}


def test_nodes_are_measured_one_by_one_not_as_they_would_be_fused() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {-7.0}> { t = Conv(x, w) y = Relu(t) }"""
    ranges = _ranges(text, {"x": [[[[1.0, 2.0], [3.0, -1.0]]]]})
    assert (ranges["t"], ranges["y"]) == (21.0, 7.0)


def test_the_model_is_not_changed() -> None:
    model = onnx.parser.parse_model(GRAPH)
    before = model.SerializeToString()
    tensor_ranges(model, [{"x": np.ones((1, 2), np.float32)}])
    assert model.SerializeToString() == before
