"""The measures of parity: exact where they can be, never fooled by NaN, Inf, scale or one wrong element."""

import json
import math
from typing import Any, Tuple, Type

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploy_attn.jetson.metrics import as_dict, compare, within

Array = Any  # of numpy: its own types take no parameters on Python 3.6

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, max_side=5)
FINITE = hnp.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
NOT_FINITE = st.sampled_from((math.nan, math.inf, -math.inf))
ANY_NUMBER = st.floats(width=32)
ANYTHING_GOES = math.inf


def drawn_index(data: st.DataObject, array: Array) -> Tuple[int, ...]:
    return tuple(data.draw(st.integers(0, side - 1)) for side in array.shape)


def test_the_measures_of_a_worked_example() -> None:
    found = compare(np.array([[3.0, 5.0]]), np.array([[3.0, 4.0]]))
    assert found.max_abs == 1.0
    assert found.rms_relative == pytest.approx(1 / 5)
    assert found.cosine == pytest.approx((3 * 3 + 5 * 4) / (math.sqrt(34) * 5))
    assert found.worst_relative == pytest.approx(1 / 4)  # 4 is above the reference's RMS of 3.54
    assert (found.worst_index, found.worst_expected, found.worst_actual) == ((0, 1), 4.0, 5.0)
    assert found.non_finite == 0


def test_an_error_at_a_small_element_is_measured_against_the_rms() -> None:
    found = compare(np.array([0.5, 10.0]), np.array([0.0, 10.0]))
    assert found.worst_relative == pytest.approx(0.5 / math.sqrt(50))
    assert found.worst_index == (0,)


@given(FINITE)
def test_an_array_equals_itself(array: Array) -> None:
    found = compare(array, array)
    assert (found.max_abs, found.rms_relative, found.worst_relative) == (0.0, 0.0, 0.0)
    assert found.cosine == pytest.approx(1.0)
    assert within(found, 0.0, 0.0)


@given(array=FINITE, noise=st.integers(0, 2**32 - 1), power=st.integers(-20, 20), sign=st.sampled_from((-1.0, 1.0)))
def test_scaling_both_arrays_leaves_the_relative_measures(array: Array, noise: int, power: int, sign: float) -> None:
    want = array.astype(np.float64)
    got = want + np.random.RandomState(noise).standard_normal(want.shape) * (1.0 + np.abs(want))
    scale = sign * 2.0**power
    plain, scaled = compare(got, want), compare(got * scale, want * scale)
    assert scaled.max_abs == abs(scale) * plain.max_abs
    assert scaled.rms_relative == pytest.approx(plain.rms_relative, rel=1e-9)
    assert scaled.worst_relative == pytest.approx(plain.worst_relative, rel=1e-9)
    assert scaled.cosine == pytest.approx(plain.cosine, rel=1e-9)


@given(want=FINITE, data=st.data())
def test_a_single_wrong_element_is_found_at_its_index(want: Array, data: st.DataObject) -> None:
    index = drawn_index(data, want)
    got = want.astype(np.float64)
    got[index] += 1.0 + float(np.abs(got).max())
    found = compare(got, want)
    assert found.worst_index == index
    assert found.worst_expected == float(want[index])
    assert found.worst_actual == float(got[index])
    assert found.max_abs == abs(found.worst_actual - found.worst_expected)
    assert not within(found, ANYTHING_GOES, 0.1)


def test_one_wrong_element_cannot_hide_in_a_large_map() -> None:
    want = np.ones((1000, 1000), dtype=np.float32)
    got = want.copy()
    got[123, 456] = 2.0
    found = compare(got, want)
    assert found.rms_relative == pytest.approx(1e-3)
    assert found.worst_relative == pytest.approx(1.0)
    assert not within(found, 2e-3, 1e-1)


@given(want=FINITE, value=NOT_FINITE, data=st.data())
def test_nan_and_inf_never_pass(want: Array, value: float, data: st.DataObject) -> None:
    index = drawn_index(data, want)
    got = want.copy()
    got[index] = value
    found = compare(got, want)
    assert not within(found, ANYTHING_GOES, ANYTHING_GOES)
    assert (found.non_finite, found.worst_index) == (1, index)
    assert found.worst_expected == float(want[index])
    assert found.worst_actual == pytest.approx(value, nan_ok=True)
    assert all(math.isnan(value) for value in found[:4])


def test_every_value_that_is_not_finite_is_counted_and_the_first_is_shown() -> None:
    got = np.array([[0.0, math.inf], [math.nan, -math.inf]])
    found = compare(got, np.zeros((2, 2)))
    assert (found.non_finite, found.worst_index, found.worst_actual) == (3, (0, 1), math.inf)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("got", [0.0, 1.0])
def test_no_finite_output_passes_against_a_reference_that_is_not_finite(got: float, value: float) -> None:
    found = compare(np.array([got, got]), np.array([value, 1.0]))
    assert not within(found, ANYTHING_GOES, ANYTHING_GOES)
    json.dumps(as_dict(found), allow_nan=False)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_does_not_pass_because_the_reference_is_the_same(value: float) -> None:
    array = np.array([value, 1.0])
    assert not within(compare(array, array), ANYTHING_GOES, ANYTHING_GOES)


def test_against_a_zero_reference_only_zero_is_right() -> None:
    zero = np.zeros((2, 3), dtype=np.float32)
    found = compare(zero + np.float32(1e-30), zero)
    assert (found.rms_relative, found.worst_relative, found.cosine) == (math.inf, math.inf, 0.0)
    assert not within(found, 1e9, 1e9)
    assert within(compare(zero, zero), 0.0, 0.0)


def test_negative_zero_is_zero() -> None:
    assert within(compare(np.array([-0.0]), np.array([0.0])), 0.0, 0.0)


def test_an_output_of_zeros_is_wholly_wrong() -> None:
    found = compare(np.zeros(4), np.array([1.0, -2.0, 3.0, -4.0]))
    assert (found.rms_relative, found.cosine) == (1.0, 0.0)


@pytest.mark.parametrize(("actual", "expected"), [((2, 3), (3, 2)), ((6,), (2, 3)), ((1, 3), (3,)), ((), (1,))])
def test_another_shape_is_an_error_and_is_never_broadcast(actual: Tuple[int, ...], expected: Tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape") as raised:
        compare(np.zeros(actual), np.zeros(expected))
    assert str(actual) in str(raised.value)
    assert str(expected) in str(raised.value)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 4)])
def test_arrays_without_elements_are_an_error_that_names_their_shape(shape: Tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as raised:
        compare(np.zeros(shape), np.zeros(shape))
    assert str(shape) in str(raised.value)


def test_a_scalar_output_has_the_empty_index() -> None:
    found = compare(np.array(3.0), np.array(2.0))
    assert (found.worst_index, found.max_abs, found.worst_relative) == ((), 1.0, 0.5)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int32, np.uint8])
def test_narrow_types_are_compared_in_float64(kind: Type[np.generic]) -> None:
    largest = 60000 if kind is np.float16 else 200
    got, want = np.array([largest, 1], dtype=kind), np.array([0, largest], dtype=kind)
    found = compare(got, want)
    assert found.max_abs == float(got[0])
    assert found.rms_relative == pytest.approx(math.hypot(float(got[0]), float(want[1]) - 1) / float(want[1]))


@pytest.mark.parametrize(
    ("rms_tolerance", "worst_tolerance", "passes"),
    [(0.2, 0.25, True), (0.19, 0.25, False), (0.2, 0.24, False), (math.nan, 1.0, False), (1.0, math.nan, False)],
)
def test_both_bounds_must_hold_and_include_their_ends(
    rms_tolerance: float, worst_tolerance: float, passes: bool
) -> None:
    found = compare(np.array([3.0, 5.0]), np.array([3.0, 4.0]))
    assert within(found, rms_tolerance, worst_tolerance) is passes


def test_one_value_that_is_not_finite_outweighs_any_measure() -> None:
    found = compare(np.array([1.0]), np.array([1.0]))
    assert within(found, 0.0, 0.0)
    assert not within(found._replace(non_finite=1), ANYTHING_GOES, ANYTHING_GOES)


@given(
    actual=hnp.arrays(np.float32, (2, 3), elements=ANY_NUMBER),
    expected=hnp.arrays(np.float32, (2, 3), elements=st.floats(-100, 100, width=32)),
)
def test_any_comparison_is_strict_json_with_null_for_what_is_not_finite(actual: Array, expected: Array) -> None:
    found = compare(actual, expected)
    read = json.loads(json.dumps(as_dict(found), allow_nan=False))
    assert list(read) == list(found._fields)
    assert read["worst_index"] == list(found.worst_index)
    for name, value in found._asdict().items():
        if name != "worst_index":
            assert read[name] == (value if math.isfinite(value) else None)
