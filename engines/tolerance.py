"""How far a graph may be from its reference: written here and nowhere else, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Tolerance:
    """Bounds on a comparison: RMS relative, and any single element (see `compare`)."""

    rms_relative: float
    worst_relative: float
    reason: str


# The only place where tolerances are written. One wrong element may be 50 times
# the RMS bound: rounding errors are near normal, and no map here has enough
# elements for an honest one to stray further.
TOLERANCES: Mapping[str, Tolerance] = MappingProxyType(
    {
        "fp32": Tolerance(1e-5, 5e-4, "FP32 arithmetic in another order than the float64 reference"),
        "fp16": Tolerance(2e-3, 1e-1, "four roundings to FP16 (2^-11 each) of the whole signal"),
        "fp16-rounded": Tolerance(
            1e-2,
            5e-1,
            "pessimistic: a rounding at every FP16 node, which no engine does; it bounds, and finds overflow",
        ),
    }
)


# Where the module itself, in FP32, is further from float64 than a quarter of the
# bound, FP32 graphs may be four times as far as it is, but never beyond the ceiling.
_FP32_ALLOWANCE = 4.0
_FP32_CEILING = 1e-3


def fp32_tolerance(base: Tolerance, own_error: float) -> Tolerance:
    """The FP32 tolerance of a case on which the module itself has this error in FP32.

    Some modules amplify rounding on some inputs (a softmax over sums over H x W
    does); no FP32 graph of them can be nearer than they are themselves.
    """
    allowed = min(_FP32_ALLOWANCE * own_error, _FP32_CEILING)
    if not allowed > base.rms_relative:
        return base
    factor = allowed / base.rms_relative
    capped = allowed == _FP32_CEILING
    bound = f"{allowed:.0e}, the most for any, is allowed" if capped else "4 times that is allowed"
    reason = f"the module itself, in PyTorch in FP32, is {own_error:.1e} off on this input; {bound}"
    return Tolerance(allowed, base.worst_relative * factor, reason)
