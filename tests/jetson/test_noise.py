"""Noise is the same on every numpy, whatever its C library and compiler do to the last bit of a draw."""

import hashlib
import math
from fractions import Fraction
from typing import Any, Callable, Iterator, List

import numpy as np
import pytest

from deploy_attn.jetson.noise import Rounded, close_calls, larger_map, noise_inputs, twice_the_batch

SHAPE = (1, 8, 20, 30)
# Of the float32 values, little-endian, made with numpy 2 on x86-64.
HASHES = {
    "normal": "912604a0d9fb001290823803518551a638310bdef4fc56bc214c77f64c3ecd95",
    "far_mean": "02492f4d6a360b7f1177167805d1f2ad3fee98842e46b3ec1beee0da850ceb2e",
    "large": "6ad9075d842b4c761375afa60782bf3bbe7cfe96b266a8b879bc18c17f473390",
    "negated": "1b42a87ff18cc60aeccfd81928ca3a0553d45ab411284bbccc0eb95c19acdcd4",
}


@pytest.mark.parametrize("name", sorted(HASHES))
def test_every_numpy_makes_the_same_bits(name: str) -> None:
    noise = dict(noise_inputs(SHAPE, 3, severe=False), **noise_inputs(SHAPE, 3, severe=True))
    assert noise[name].dtype == np.float32
    assert hashlib.sha256(noise[name].tobytes()).hexdigest() == HASHES[name]


def down(value: float) -> float:
    return float(np.nextafter(value, -math.inf))


def fused(x: float, y: float) -> float:
    """x * x + y * y with one rounding less, as a processor with a fused multiply-add has it."""
    return float(Fraction(x) * Fraction(x) + Fraction(y * y))


def plain(x: float, y: float) -> float:
    return x * x + y * y


def drawn(seed: int, count: int, log: Callable[[float], float], norm: Callable[[float, float], float]) -> Any:
    """What RandomState.standard_normal draws, over another logarithm and another sum of squares."""
    uniform: Iterator[float] = iter(np.random.RandomState(seed).random_sample(4 * count).tolist())
    found: List[float] = []
    while len(found) < count:
        x, y = 2.0 * next(uniform) - 1.0, 2.0 * next(uniform) - 1.0
        r = norm(x, y)
        if 0.0 < r < 1.0:
            factor = math.sqrt(-2.0 * log(r) / r)
            found += [factor * y, factor * x]
    return np.array(found[:count])


@pytest.mark.parametrize(
    ("log", "norm"),
    [
        (math.log, fused),
        (lambda r: down(math.log(r)), plain),
        (lambda r: down(down(math.log(r))), fused),
        (lambda r: -down(-math.log(r)), fused),
    ],
    ids=["fused", "a bit less", "two bits less and fused", "a bit more and fused"],
)
def test_only_close_calls_are_rounded_to_another_float_elsewhere(
    log: Callable[[float], float], norm: Callable[[float, float], float]
) -> None:
    shape = (1, 4, 50, 100)
    here = np.random.RandomState(3).standard_normal(shape).reshape(-1)
    assert (drawn(3, here.size, math.log, plain) == here).all()
    there = drawn(3, here.size, log, norm)
    assert (there != here).sum() > 100
    margin = 2.0**-48 * (np.abs(here) + 1 / np.abs(here))
    assert (np.abs(there - here) < margin / 4).all()
    differing = np.flatnonzero(there.astype(np.float32) != here.astype(np.float32))
    assert set(differing) <= set(close_calls(shape, 3))


def test_few_draws_are_close_calls() -> None:
    assert 0 < close_calls((1, 64, 56, 56), 0).size < 300


def test_a_draw_that_was_rounded_otherwise_is_put_right_in_all_that_is_made_of_it() -> None:
    noise = noise_inputs(SHAPE, 3, severe=True)
    positions = close_calls(SHAPE, 3)[:2]
    values = np.nextafter(noise["normal"].reshape(-1)[positions], np.float32(np.inf))
    found = noise_inputs(SHAPE, 3, severe=True, rounded=Rounded(positions, values))
    changed = np.flatnonzero(found["normal"] != noise["normal"])
    assert changed.tolist() == positions.tolist()
    assert np.array_equal(found["large"], np.float32(100) * found["normal"])
    assert np.array_equal(found["far_mean"] - found["normal"] > 0, noise["far_mean"] - noise["normal"] > 0)


def test_noise_is_standard_normal_float32() -> None:
    normal = noise_inputs((4, 8, 32, 32), 0, severe=False)["normal"]
    assert normal.dtype == np.float32
    assert normal.shape == (4, 8, 32, 32)
    assert abs(float(normal.mean())) < 0.02
    assert abs(float(normal.std()) - 1) < 0.02


@pytest.mark.parametrize("severe", [False, True])
def test_noise_is_the_same_for_the_same_seed_and_another_for_another(severe: bool) -> None:
    first, again, other = (noise_inputs(SHAPE, seed, severe) for seed in (1, 1, 2))
    assert list(first) == list(again)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)


def test_mild_noise_comes_with_its_negation() -> None:
    inputs = noise_inputs(SHAPE, 3, severe=False)
    assert list(inputs) == ["normal", "negated"]
    np.testing.assert_array_equal(inputs["negated"], -inputs["normal"])


def test_a_far_mean_is_20_sigma_up_or_down_in_each_channel() -> None:
    inputs = noise_inputs((2, 64, 8, 8), 3, severe=True)
    assert list(inputs) == ["normal", "far_mean", "large"]
    np.testing.assert_array_equal(inputs["normal"], noise_inputs((2, 64, 8, 8), 3, severe=False)["normal"])
    shifts = inputs["far_mean"] - inputs["normal"]
    assert inputs["far_mean"].dtype == np.float32
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:1, :, :1, :1], shifts.shape), atol=1e-5)
    np.testing.assert_allclose(np.abs(shifts), 20, atol=1e-5)
    assert 10 < int((shifts[0, :, 0, 0] > 0).sum()) < 54


def test_twice_the_batch_adds_the_mirror_images() -> None:
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    doubled = twice_the_batch(x)
    assert doubled.shape == (4, 3, 4, 5)
    assert doubled.dtype == np.float32
    assert doubled.flags.c_contiguous
    np.testing.assert_array_equal(doubled[:2], x)
    np.testing.assert_array_equal(doubled[2:], np.flip(x, 3))


def test_large_noise_is_100_times_the_noise() -> None:
    inputs = noise_inputs(SHAPE, 3, severe=True)
    np.testing.assert_array_equal(inputs["large"], np.float32(100) * inputs["normal"])


def test_a_larger_map_holds_the_map_and_repeats_it() -> None:
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    larger = larger_map(x, 2, 5)
    assert larger.shape == (2, 3, 6, 10)
    np.testing.assert_array_equal(larger[:, :, :4, :5], x)
    np.testing.assert_array_equal(larger[:, :, 4:, :5], x[:, :, :2])
    np.testing.assert_array_equal(larger[:, :, :4, 5:], x)
    assert larger_map(x[:, :, :1, :1], 2, 3).shape == (2, 3, 3, 4)
