"""What a comparison of two candidates found: times of each, the paired ratio, the control's error bar, conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploy_attn.engines.pairs import Paired, Stopwatch, wall_clock

_QUANTILES = tuple(range(0, 101, 5))


@dataclass(frozen=True)
class Candidate:
    """Something that can be timed: `call` runs it once and returns when its result is there.

    Attributes:
        label: what a table calls it, as `naive` or `out/cbam fp32`.
        call: warm or not; it keeps what it needs alive.
        conditions: what its times depend on beyond the machine: engine, version, settings. JSON values only.
        stopwatch: runs it once and returns its seconds by the device's own clock; the wall clock times `call` without.
    """

    label: str
    call: Callable[[], object]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    stopwatch: Stopwatch | None = None

    @property
    def timer(self) -> Stopwatch:
        """What runs it once and returns the seconds that it took."""
        return self.stopwatch or wall_clock(self.call)


@dataclass(frozen=True)
class Latency:
    """Times of one candidate within one comparison, in milliseconds."""

    milliseconds: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Percentiles, interpolated as numpy does; `quantiles` at 0, 5 ... 100 % for a distribution."""
        values = np.asarray(self.milliseconds, dtype=np.float64)
        p10, median, p90, p99 = (float(value) for value in np.percentile(values, [10, 50, 90, 99]))
        return {
            "n": len(self.milliseconds),
            "median_ms": median,
            "p10_ms": p10,
            "p90_ms": p90,
            "p99_ms": p99,
            "min_ms": float(values.min()),
            "max_ms": float(values.max()),
            "quantiles_ms": [float(value) for value in np.percentile(values, _QUANTILES)],
        }


@dataclass(frozen=True)
class Blocks:
    """How many blocks of pairs were kept, how many were repeated because something else ran, and what that was.

    `spoiled` of those that were kept are no better than the ones that were repeated: there is an end to repeating.
    """

    kept: int
    repeated: int
    reasons: tuple[str, ...] = ()
    spoiled: int = 0


@dataclass(frozen=True)
class Comparison:
    """One candidate against a baseline.

    Attributes:
        candidate: what the question is about.
        baseline: what it is compared with.
        pairs: timed calls, `first` the baseline's and `second` the candidate's: a ratio above 1 means that the
            candidate is faster.
        control: the candidate against a second instance of itself, under the same protocol.
        claim: what may be said, one sentence; None where the pairs or the control do not bear one.
        refused: why there is no claim; empty where there is one.
        conditions: cache regime, threads, spinning, denormals, load, machine, versions. JSON values only.
    """

    candidate: Candidate
    baseline: Candidate
    pairs: Paired
    control: Paired
    blocks: Blocks
    claim: str | None
    refused: str
    conditions: Mapping[str, Any]

    @property
    def error(self) -> float:
        """The error bar of the ratio: how far from 1 the control's median may lie at most."""
        return error_bar(self.control)

    def as_dict(self) -> dict[str, Any]:
        return {
            "candidate": _side(self.candidate, self.pairs.second_s),
            "baseline": _side(self.baseline, self.pairs.first_s),
            "ratio": self.pairs.as_dict(),
            "control": self.control.as_dict(),
            "error": self.error,
            "blocks": {
                "kept": self.blocks.kept,
                "repeated": self.blocks.repeated,
                "spoiled": self.blocks.spoiled,
                "reasons": list(self.blocks.reasons),
            },
            "claim": self.claim,
            "refused": self.refused or None,
            "conditions": dict(self.conditions),
        }


def error_bar(control: Paired) -> float:
    """How far from 1 the median of a thing against itself may lie, with a probability of 95 %: bias and spread."""
    return max(abs(end - 1) for end in control.interval)


def _side(candidate: Candidate, seconds: Sequence[float]) -> dict[str, Any]:
    latency = Latency(tuple(1e3 * one for one in seconds)).as_dict()
    return {"label": candidate.label, "latency": latency, "conditions": dict(candidate.conditions)}
