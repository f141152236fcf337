"""A thinned output passes and fails as the whole one would, wherever the fault is."""

from typing import Any, Callable, Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy_attn.jetson.metrics import Comparison, compare, within
from deploy_attn.jetson.thinning import LEAST, SAMPLED, Thinned, compare_thinned, sample_positions, signed_sums, thin

Array = Any  # of numpy: its own types take no parameters on Python 3.6
Bounds = Tuple[float, float]

FP32, FP16 = (1e-5, 5e-4), (2e-3, 1e-1)
SHAPE = (1, 64, 56, 56)
EACH_SIZE = pytest.mark.parametrize("size", [LEAST, LEAST + 1, 100003, 131072, 131073, 200704, 401408])


def output(seed: int = 0, shape: Tuple[int, ...] = SHAPE) -> Array:
    """Maps of channels with very different magnitudes, as a gate leaves them."""
    random = np.random.RandomState(seed)
    gates = np.exp(1.5 * random.standard_normal(shape[:2] + (1, 1)))
    return (gates * random.standard_normal(shape)).astype(np.float32)


WHOLE = output()
RMS = float(np.sqrt(np.mean(WHOLE.astype(np.float64) ** 2)))
KEPT = thin(WHOLE)


def outcome(actual: Array, kept: Thinned, bounds: Bounds) -> Tuple[bool, Comparison]:
    found, _ = compare_thinned(actual, kept, bounds[1])
    return within(found, *bounds), found


def beside_the_sample(seed: int = 0) -> int:
    outside = np.setdiff1d(np.arange(WHOLE.size), sample_positions(WHOLE.size))
    return int(np.random.RandomState(seed).choice(outside))


def test_the_very_same_output_is_off_by_nothing() -> None:
    held, found = outcome(WHOLE, KEPT, FP32)
    assert held
    assert found.max_abs == found.worst_relative == 0.0
    assert found.rms_relative < 1e-9
    assert found.cosine == pytest.approx(1.0)


def test_what_is_kept_is_small_and_says_what_it_is() -> None:
    assert KEPT.sample.nbytes + KEPT.sums.nbytes < WHOLE.nbytes / 38
    assert str(KEPT) == "2,048 of 200,704 elements, and all of them in 3,136 signed sums"


def shifted(array: Array) -> None:
    array[0, 17, 20] = np.roll(array[0, 17, 20], 1)


def zeroed(array: Array) -> None:
    array[0, 9] = 0


def transposed(array: Array) -> None:
    array[0, 5] = array[0, 5].T.copy()


def exchanged(array: Array) -> None:
    array[0, [3, 4]] = array[0, [4, 3]]


def negated_pixel(array: Array) -> None:
    array[0, :, 30, 31] *= -1


def last_row_missing(array: Array) -> None:
    array[:, :, -1] = 0


def biased(array: Array) -> None:
    array += np.float32(0.05 * RMS)


@pytest.mark.parametrize("fault", [shifted, zeroed, transposed, exchanged, negated_pixel, last_row_missing, biased])
def test_a_fault_of_many_elements_fails_also_at_fp16(fault: Callable[[Array], None]) -> None:
    actual = WHOLE.copy()
    fault(actual)
    assert not within(compare(actual, WHOLE), *FP16)
    assert not outcome(actual, KEPT, FP16)[0]


@pytest.mark.parametrize("seed", range(20))
def test_one_wrong_element_beside_the_sample_fails_and_is_named(seed: int) -> None:
    actual, place = WHOLE.copy(), beside_the_sample(seed)
    actual.reshape(-1)[place] += 100 * RMS
    found, compared = compare_thinned(actual, KEPT, FP16[1])
    assert not within(found, *FP16)
    assert np.ravel_multi_index(found.worst_index, SHAPE) == place
    assert found.worst_actual == actual.reshape(-1)[place]
    assert found.worst_expected == pytest.approx(WHOLE.reshape(-1)[place], abs=1e-3 * RMS)
    assert found.max_abs == pytest.approx(100 * RMS, rel=1e-3)
    assert compared.endswith("the worst element is the likeliest one in the sum that is furthest off")


def test_one_wrong_element_of_the_sample_is_named_for_certain() -> None:
    actual, place = WHOLE.copy(), int(sample_positions(WHOLE.size)[77])
    actual.reshape(-1)[place] += 3 * RMS
    found, compared = compare_thinned(actual, KEPT, FP16[1])
    assert not within(found, *FP16)
    assert np.ravel_multi_index(found.worst_index, SHAPE) == place
    assert found.worst_expected == WHOLE.reshape(-1)[place]
    assert "likeliest" not in compared


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_counted_in_all_elements(value: float) -> None:
    actual = WHOLE.copy()
    places = sorted(beside_the_sample(seed) for seed in range(3))
    actual.reshape(-1)[places] = value
    held, found = outcome(actual, KEPT, (np.inf, np.inf))
    assert not held
    assert found.non_finite == 3
    assert np.ravel_multi_index(found.worst_index, SHAPE) == places[0]


def test_rounding_to_fp16_holds_at_fp16_and_not_at_fp32() -> None:
    actual = WHOLE.astype(np.float16).astype(np.float32)
    assert outcome(actual, KEPT, FP16)[0]
    assert not outcome(actual, KEPT, FP32)[0]


@pytest.mark.parametrize("bounds", [FP32, FP16])
@pytest.mark.parametrize("seed", range(5))
def test_honest_errors_as_large_as_allowed_are_no_alarm(bounds: Bounds, seed: int) -> None:
    errors = np.random.RandomState(seed).standard_normal(SHAPE)
    actual = WHOLE.astype(np.float64) + 0.95 * bounds[0] * RMS * errors
    assert within(compare(actual, WHOLE), *bounds)
    assert outcome(actual, KEPT, bounds)[0]


def dense(random: Array, array: Array) -> Array:
    return random.standard_normal(array.shape)


def proportional(random: Array, array: Array) -> Array:
    return array * random.standard_normal(array.shape)


def constant(random: Array, array: Array) -> Array:
    return np.ones(array.shape)


def of_one_channel(random: Array, array: Array) -> Array:
    errors = np.zeros(array.shape)
    errors[:, random.randint(array.shape[1])] = random.standard_normal(array.shape[2:])
    return errors


def of_one_column(random: Array, array: Array) -> Array:
    errors = np.zeros(array.shape)
    errors[..., random.randint(array.shape[3])] = 1
    return errors


def periodic(random: Array, array: Array) -> Array:
    return np.sin(np.arange(array.size) * random.uniform(0, 3)).reshape(array.shape)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    power=st.floats(-7, 0),
    pattern=st.sampled_from([dense, proportional, constant, of_one_channel, of_one_column, periodic]),
    shape=st.sampled_from([SHAPE, (2, 8, 40, 30), (1, 128, 8, 8), (3, 5, 61, 53)]),
)
def test_the_sums_tell_the_rms_error_of_all_elements(
    seed: int, power: float, pattern: Callable[[Array, Array], Array], shape: Tuple[int, ...]
) -> None:
    random = np.random.RandomState(seed)
    whole = output(seed, shape)
    errors = pattern(random, whole)
    scale = 10**power * np.linalg.norm(whole.astype(np.float64)) / np.linalg.norm(errors)
    actual = whole.astype(np.float64) + scale * errors
    true = compare(actual, whole)
    found, _ = compare_thinned(actual, thin(whole), np.inf)
    assert found.rms_relative == pytest.approx(true.rms_relative, rel=0.15)
    assert found.cosine == pytest.approx(true.cosine, abs=0.1 * 10 ** min(0.0, 2 * power) + 1e-12)
    assert found.worst_relative <= true.worst_relative * 1.1


@settings(max_examples=60, deadline=None)
@given(
    place=st.integers(0, WHOLE.size - 1),
    size=st.floats(6, 1e6),
    sign=st.sampled_from([-1, 1]),
    bounds=st.sampled_from([FP32, FP16]),
)
def test_any_element_that_is_wrong_by_six_times_its_bound_fails(
    place: int, size: float, sign: int, bounds: Bounds
) -> None:
    actual = WHOLE.astype(np.float64)
    actual.reshape(-1)[place] += sign * size * bounds[1] * max(RMS, abs(float(WHOLE.reshape(-1)[place])))
    assert not outcome(actual, KEPT, bounds)[0]


@EACH_SIZE
def test_every_element_is_in_one_sum_with_one_sign(size: int) -> None:
    for place in (0, 1, size // 2, size - 1):
        only = np.zeros(size, np.float32)
        only[place] = 3
        assert sorted(set(np.abs(signed_sums(only)))) == [0, 3]
    assert np.abs(signed_sums(np.ones(size))).sum() < size
    assert signed_sums(np.ones(size)).size == max(2048, -(-size // 64))


@EACH_SIZE
def test_the_sample_is_spread_and_has_both_ends(size: int) -> None:
    positions = sample_positions(size)
    assert positions.size == SAMPLED
    assert (positions[0], positions[-1]) == (0, size - 1)
    assert (np.diff(positions) > 0).all()
    assert np.diff(positions).max() <= 2 * -(-size // SAMPLED)


def test_the_sample_is_in_every_channel_and_every_column() -> None:
    _, channels, rows, columns = np.unravel_index(sample_positions(WHOLE.size), SHAPE)
    assert [len(set(axis)) for axis in (channels, rows, columns)] == list(SHAPE[1:])


def test_places_and_signs_are_the_same_on_every_numpy() -> None:
    """Else a board would add up other elements than the host did."""
    assert sample_positions(200704)[1:6].tolist() == [186, 263, 352, 403, 575]
    assert signed_sums(np.arange(200704))[:5].tolist() == [-728792.0, -3179462.0, -2181658.0, -1099388.0, -278642.0]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.int64, np.uint8, np.bool_])
def test_other_types_than_float32_are_compared_too(dtype: Any) -> None:
    whole = (100 * np.random.RandomState(0).random_sample((1, 16, 32, 32))).astype(dtype)
    actual = whole.copy()
    assert outcome(actual, thin(whole), FP32)[0]
    actual[0, 7] = 0
    assert not outcome(actual, thin(whole), FP32)[0]


def test_nothing_but_zeros_equals_zeros() -> None:
    zeros = np.zeros(SHAPE, np.float32)
    assert outcome(zeros, thin(zeros), FP32)[0]
    actual = zeros.copy()
    actual.reshape(-1)[beside_the_sample()] = 1e-20
    assert not outcome(actual, thin(zeros), FP16)[0]


def test_values_near_the_end_of_float32_do_not_overflow() -> None:
    whole = (WHOLE / np.abs(WHOLE).max() * 3e38).astype(np.float32)
    assert outcome(whole, thin(whole), FP32)[0]


def test_an_array_in_another_order_of_memory_is_the_same_array() -> None:
    assert outcome(np.asfortranarray(WHOLE), KEPT, FP32)[1].rms_relative < 1e-9


def test_another_shape_is_never_compared() -> None:
    with pytest.raises(ValueError, match="compared with"):
        compare_thinned(WHOLE.reshape(1, 64, 28, 112), KEPT, FP16[1])
