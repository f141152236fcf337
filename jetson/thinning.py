"""An output in a small part of its bytes, that a whole one can still be held against.

A sample of elements is kept as it is. All elements, each with a sign of its own,
are added up in some thousand sums: a wrong element changes its sum, and since the
signs are random, the errors of the sums are to the sums what the errors of the
elements are to the elements (Johnson and Lindenstrauss; Alon, Matias and Szegedy).
"""

from typing import Iterator, NamedTuple, Tuple

import numpy as np

from .metrics import Comparison, compare, non_finite

LEAST = 8192  # elements; fewer are kept whole
SAMPLED = 2048
# Errors of n sums tell the RMS error to within 1 / sqrt(2 n).
_LEAST_SUMS = 2048
# In a sum of 64 elements, an element that is wrong by 50 times the RMS bound stands out of honest
# errors of that bound by 50 / sqrt(64), which is 6 sigma. In longer sums it would not.
_MOST_IN_A_SUM = 64
_UNITS = 2**31 - 1
_CHUNK = 1 << 17
_BLAMED = "; the worst element is the likeliest one in the sum that is furthest off"

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


class Thinned(NamedTuple):
    """What is kept of an array: `sample` at `sample_positions`, and `sums`, whole numbers of `unit`."""

    shape: Tuple[int, ...]
    sample: np.ndarray
    sums: np.ndarray
    unit: float

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __str__(self) -> str:
        return "{:,} of {:,} elements, and all of them in {:,} signed sums".format(
            self.sample.size, self.size, self.sums.size
        )


def thin(array: np.ndarray) -> Thinned:
    """What a capsule keeps of an array of at least LEAST elements, all finite.

    The sums are rounded to 2^-31 of the largest, in int32: the bytes of a float32, and nothing that shows in an error.
    """
    sums = signed_sums(array)
    unit = float(np.abs(sums).max()) / _UNITS or 1.0
    sample = array.reshape(-1)[sample_positions(array.size)]
    return Thinned(array.shape, sample, np.rint(sums / unit).astype(np.int32), unit)


def compare_thinned(actual: np.ndarray, expected: Thinned, worst_tolerance: float) -> Tuple[Comparison, str]:
    """A whole array against what was kept of another, with the measures of `compare`, and what was compared in words.

    `rms_relative` and `cosine` are those of the sums, which stand for all
    elements; `max_abs` and `worst_*` those of the sample, over the RMS of all.
    Where a sum is further off than one element with an error of `worst_tolerance`
    would make it, `worst_*` belong to the element that it blames, see `_blamed`.
    NaN and Inf are looked for, and counted, in all elements.

    Raises:
        ValueError: the shapes differ.
    """
    if actual.shape != expected.shape:
        raise ValueError("shape {} compared with {}".format(actual.shape, expected.shape))
    bad = ~np.isfinite(actual)
    if bad.any():
        return non_finite(actual, bad, float("nan")), str(expected)
    got, want = signed_sums(actual), expected.sums * expected.unit
    positions = sample_positions(expected.size)
    whole = compare(got, want)
    part = compare(actual.reshape(-1)[positions], expected.sample, float(np.linalg.norm(want)) / expected.size**0.5)
    found = part._replace(
        rms_relative=whole.rms_relative,
        cosine=whole.cosine,
        worst_index=_index(positions[part.worst_index[0]], expected.shape),
    )
    of_one_element = whole.worst_relative * (expected.size / float(want.size)) ** 0.5
    if part.worst_relative > worst_tolerance or of_one_element <= worst_tolerance:
        return found, str(expected)
    place = whole.worst_index[0]
    blamed = _blamed(found, actual, place, float(got[place] - want[place]))
    return blamed._replace(worst_relative=of_one_element), "{}{}".format(expected, _BLAMED)


def signed_sums(array: np.ndarray) -> np.ndarray:
    """The sums over all elements in float64; which sum and sign an element has is told by its place alone."""
    flat = array.reshape(-1)
    sums = np.zeros(sum_count(flat.size))
    for start, places, signs in _places(flat.size):
        sums += np.bincount(places, flat[start : start + places.size] * signs, sums.size)
    return sums


def sum_count(size: int) -> int:
    """How many sums an array of so many elements has."""
    return max(_LEAST_SUMS, -(-size // _MOST_IN_A_SUM))


def sample_positions(size: int) -> np.ndarray:
    """Flat positions of the sample: the first, the last, and one by chance in each of as many stretches."""
    edges = np.arange(SAMPLED + 1, dtype=np.int64) * size // SAMPLED
    positions = edges[:-1] + (_scrambled(0, SAMPLED) >> np.uint64(1)).astype(np.int64) % np.diff(edges)
    positions[0], positions[-1] = 0, size - 1
    return np.asarray(positions)


def _blamed(found: Comparison, actual: np.ndarray, place: int, off: float) -> Comparison:
    """The comparison with the element that alone would explain best why a sum is off.

    If one element is to blame, it should have been its value less that. Of all in
    the sum, this is nearest to zero for one that is far too large. What is in the
    sample is known not to be it.
    """
    flat = actual.reshape(-1)
    members, signs = _members(flat.size, place)
    should_be = flat[members] - signs * off
    should_be[np.isin(members, sample_positions(flat.size))] = np.inf
    one = int(np.argmin(np.abs(should_be)))
    return found._replace(
        max_abs=abs(off),
        worst_index=_index(members[one], actual.shape),
        worst_expected=float(should_be[one]),
        worst_actual=float(flat[members[one]]),
    )


def _members(size: int, place: int) -> Tuple[np.ndarray, np.ndarray]:
    """Flat positions of the elements in one sum, and their signs."""
    found = [
        (start + np.flatnonzero(places == place), signs[places == place]) for start, places, signs in _places(size)
    ]
    positions, chosen = zip(*found)
    return np.concatenate(positions), np.concatenate(chosen)


def _places(size: int) -> Iterator[Tuple[int, np.ndarray, np.ndarray]]:
    """For a chunk of elements at a time: where it starts, in which sum each is, and with which sign."""
    count = np.uint64(sum_count(size))
    for start in range(0, size, _CHUNK):
        scrambled = _scrambled(start, min(start + _CHUNK, size))
        yield start, (scrambled % count).astype(np.int64), np.where(scrambled >> np.uint64(63), -1.0, 1.0)


def _scrambled(start: int, stop: int) -> np.ndarray:
    """A number by chance for each from start to stop, always the same: the finalizer of SplitMix64 (Steele et al.)."""
    mixed = np.arange(start + 1, stop + 1, dtype=np.uint64) * _STEP
    for shift, factor in zip(_SHIFTS, _FACTORS):
        mixed = (mixed ^ (mixed >> shift)) * factor
    found: np.ndarray = mixed ^ (mixed >> _SHIFTS[-1])
    return found


def _index(position: int, shape: Tuple[int, ...]) -> Tuple[int, ...]:
    return tuple(int(axis) for axis in np.unravel_index(int(position), shape))
