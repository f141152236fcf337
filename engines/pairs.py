"""Two candidates timed against each other: pair by pair, in random order, the ratio taken within the pair.

A machine's speed drifts by tens of per cent between minutes, and hardly at all
between two calls in a row. So times of two runs are never compared; the ratio
of each pair is, and its median with its spread is the answer. Before each timed
call comes one of the same candidate that is not timed and brings its data into
the caches.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Call = Callable[[], object]

_WARM_UP_CALLS = 10
_WARM_UP_S = 1.0
_SLOW_S = 0.05


@dataclass(frozen=True)
class Effort:
    """How long to measure one pair of candidates.

    Attributes:
        seconds: about so long in all.
        least: the fewest pairs, where a call takes up to 50 ms.
        least_if_slow: and where it takes longer.
        most: the most pairs.
    """

    seconds: float
    least: int = 30
    least_if_slow: int = 8
    most: int = 300


@dataclass(frozen=True)
class Paired:
    """Timed calls of two candidates, pair by pair, in seconds."""

    first_s: tuple[float, ...] = field(default_factory=tuple)
    second_s: tuple[float, ...] = field(default_factory=tuple)

    @property
    def ratios(self) -> list[float]:
        """first / second within each pair: above 1 the second is faster."""
        return [a / b for a, b in zip(self.first_s, self.second_s)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def slow(self) -> bool:
        """Whether a call takes so long that fewer pairs are taken."""
        return statistics.median(self.first_s) > _SLOW_S

    def joined(self, other: Paired) -> Paired:
        """The pairs of both."""
        return Paired(self.first_s + other.first_s, self.second_s + other.second_s)

    def as_dict(self) -> dict[str, Any]:
        """The ratio's median, p10, p90 and number of pairs."""
        tenths = statistics.quantiles(self.ratios, n=10, method="inclusive") if len(self.first_s) > 1 else [self.ratio]
        figures = {"median": self.ratio, "p10": tenths[0], "p90": tenths[-1]}
        return {**{name: round(value, 3) for name, value in figures.items()}, "pairs": len(self.first_s)}


def warm_up(call: Call) -> None:
    """Ten calls, or as many as a second holds."""
    began = time.perf_counter()
    for _ in range(_WARM_UP_CALLS):
        call()
        if time.perf_counter() - began > _WARM_UP_S:
            break


def paired(first: Call, second: Call, effort: Effort) -> Paired:
    """Times two candidates that are warm, one pair after another."""
    one_s = [_timed(call) for call in (first, second)]
    least = effort.least if max(one_s) <= _SLOW_S else effort.least_if_slow
    affordable = int(effort.seconds / (2 * sum(one_s)))
    times: Mapping[int, list[float]] = {0: [], 1: []}
    for _ in range(min(effort.most, max(least, affordable))):
        turns = [(0, first), (1, second)]
        random.shuffle(turns)  # no secret hangs on it
        for index, call in turns:
            call()
            times[index].append(_timed(call))
    return Paired(tuple(times[0]), tuple(times[1]))


def _timed(call: Call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
