"""How far an output is from its reference: one definition for host and device."""

from typing import Dict, NamedTuple, Optional, Tuple, Union

import numpy as np


class Comparison(NamedTuple):
    """The measures of `compare`; `worst_*` belong to the element of `worst_relative`."""

    max_abs: float
    rms_relative: float
    cosine: float
    worst_relative: float
    worst_index: Tuple[int, ...]
    worst_expected: float
    worst_actual: float
    non_finite: int


def compare(actual: np.ndarray, expected: np.ndarray, rms: Optional[float] = None) -> Comparison:
    """Compares two arrays of one shape, in float64.

    `rms_relative` is ||actual - expected|| / ||expected||. `worst_relative` is
    the largest single error over max(rms(expected), |expected there|), so that
    one wrong element cannot hide in a large map. With any NaN or Inf in
    `actual` the four measures are NaN and the index is that of the first one.

    Args:
        rms: rms(expected) where these are a part of a larger array.

    Raises:
        ValueError: the shapes differ.
    """
    if actual.shape != expected.shape:
        raise ValueError("shape {} compared with {}".format(actual.shape, expected.shape))
    if actual.size == 0:
        raise ValueError("nothing to compare: shape {} has no elements".format(actual.shape))
    got = np.asarray(actual, dtype=np.float64)
    want = np.asarray(expected, dtype=np.float64)
    bad = ~np.isfinite(got)
    if bad.any():
        return non_finite(got, bad, float(want[_index(bad)]))
    error = np.abs(got - want)
    norm = float(np.linalg.norm(want.ravel()))
    scale = np.maximum(np.abs(want), norm / want.size**0.5 if rms is None else rms)
    relative = _ratio(error, scale)
    worst = _index(relative)
    return Comparison(
        max_abs=float(error.max()),
        rms_relative=float(_ratio(float(np.linalg.norm(error.ravel())), norm)),
        cosine=_cosine(got, want),
        worst_relative=float(relative[worst]),
        worst_index=worst,
        worst_expected=float(want[worst]),
        worst_actual=float(got[worst]),
        non_finite=0,
    )


def within(comparison: Comparison, rms_tolerance: float, worst_tolerance: float) -> bool:
    """True when every value is finite and both relative errors are in bounds."""
    return (
        comparison.non_finite == 0
        and comparison.rms_relative <= rms_tolerance
        and comparison.worst_relative <= worst_tolerance
    )


def non_finite(actual: np.ndarray, bad: np.ndarray, expected: float) -> Comparison:
    """The comparison of an array with NaN or Inf where `bad` says so; `expected` belongs to the first of them."""
    first = _index(bad)
    nan = float("nan")
    return Comparison(
        max_abs=nan,
        rms_relative=nan,
        cosine=nan,
        worst_relative=nan,
        worst_index=first,
        worst_expected=expected,
        worst_actual=float(actual[first]),
        non_finite=int(bad.sum()),
    )


def as_dict(comparison: Comparison) -> Dict[str, object]:
    """The comparison as JSON can hold it: a number that is not finite is null."""
    fields: Dict[str, object] = {}
    for name, value in comparison._asdict().items():
        fields[name] = finite_or_none(value) if isinstance(value, float) else value
    fields["worst_index"] = list(comparison.worst_index)
    return fields


def finite_or_none(value: float) -> Optional[float]:
    """A number as JSON can hold it: it has no name for what is not finite."""
    return value if np.isfinite(value) else None


def _index(array: np.ndarray) -> Tuple[int, ...]:
    """Where an array is largest; () for a scalar, which old numpy cannot unravel."""
    if array.ndim == 0:
        return ()
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(array)), array.shape))


def _ratio(error: Union[float, np.ndarray], scale: Union[float, np.ndarray]) -> np.ndarray:
    """error / scale, with 0 / 0 = 0: against an all-zero reference only zero is right."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(np.equal(error, 0), 0.0, np.divide(error, scale)))


def _cosine(got: np.ndarray, want: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        norms = float(np.linalg.norm(got.ravel()) * np.linalg.norm(want.ravel()))
        if norms == 0.0:
            return 1.0 if np.array_equal(got, want) else 0.0
        return float(np.dot(got.ravel(), want.ravel()) / norms)
