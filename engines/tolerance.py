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


# Where the module itself, in FP32, is further from float64 than an eighth of a bound,
# FP32 graphs may be eight times as far as it is, but never beyond the ceilings.
_FP32_ALLOWANCE = 8.0
_FP32_CEILING = 1e-3
_FP32_WORST_CEILING = 5e-2


def fp32_tolerance(base: Tolerance, own_rms: float, own_worst: float = 0.0) -> Tolerance:
    """The FP32 tolerance of a case on which the module itself has these errors in FP32.

    Some modules amplify rounding on some inputs: a softmax over sums over H x W
    does, or one over large logits, where a near tie decides a whole row. No FP32
    graph of them can be nearer than they are themselves.
    """
    rms = max(base.rms_relative, min(_FP32_ALLOWANCE * own_rms, _FP32_CEILING))
    worst = max(base.worst_relative * rms / base.rms_relative, min(_FP32_ALLOWANCE * own_worst, _FP32_WORST_CEILING))
    if not (rms > base.rms_relative or worst > base.worst_relative):
        return base
    capped = rms == _FP32_CEILING
    bound = f"{rms:.0e}, the most for any, is allowed" if capped else f"{_FP32_ALLOWANCE:g} times that is allowed"
    reason = f"the module itself, in PyTorch in FP32, is {own_rms:.1e} off on this input; {bound}"
    return Tolerance(rms, worst, reason)
