"""Two candidates timed against each other: pair by pair, in random order, the ratio taken within the pair.

A machine's speed drifts by tens of per cent between minutes, and hardly at all
between two calls in a row. So times of two runs are never compared; the ratio
of each pair is, and its median with its spread is the answer. Before each timed
call comes one of the same candidate that is not timed and brings its data into
the caches, or what empties them.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy_attn.jetson import timing
from deploy_attn.jetson.timing import Options, WarmUp

Call = Callable[[], object]
Stopwatch = Callable[[], float]  # runs something once, and returns the seconds that it took

WARM_UP = Options(warm_up=0.04, longest_warm_up=1.0, agreement=0.05)
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
    def interval(self) -> tuple[float, float]:
        """Where the ratio's median lies with a probability of at least 95 %, by order statistics.

        It takes six pairs; of fewer it is the range. The rank is the normal approximation's, rounded outwards.
        """
        ordered, count = sorted(self.ratios), len(self.ratios)
        rank = max(math.floor((count - 1.96 * math.sqrt(count)) / 2), 1)
        return ordered[rank - 1], ordered[count - rank]

    def joined(self, other: Paired) -> Paired:
        """The pairs of both."""
        return Paired(self.first_s + other.first_s, self.second_s + other.second_s)

    def as_dict(self) -> dict[str, Any]:
        """The ratio's median, p10, p90 and number of pairs."""
        tenths = statistics.quantiles(self.ratios, n=10, method="inclusive") if len(self.first_s) > 1 else [self.ratio]
        figures = {"median": self.ratio, "p10": tenths[0], "p90": tenths[-1]}
        return {**{name: round(value, 3) for name, value in figures.items()}, "pairs": len(self.first_s)}


def wall_clock(call: Call) -> Stopwatch:
    """Of what is done when it returns."""

    def once() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return once


def warm_up(call: Call, options: Options = WARM_UP) -> WarmUp:
    """Calls until two windows of time agree, or the longest time is over; the result says which."""
    return timing.warm_up(call, options)


def paired(first: Call, second: Call, effort: Effort) -> Paired:
    """Times two candidates that are warm, one pair after another."""
    sides = (wall_clock(first), wall_clock(second))
    one_s = [side() for side in sides]
    least = effort.least if max(one_s) <= _SLOW_S else effort.least_if_slow
    affordable = int(effort.seconds / (2 * sum(one_s)))
    return timed_pairs(sides, min(effort.most, max(least, affordable)))


def timed_pairs(sides: tuple[Stopwatch, Stopwatch], count: int, flush: Call | None = None) -> Paired:
    """So many pairs in random order; before each timed call an untimed one of the same side, or the flush."""
    times: Mapping[int, list[float]] = {0: [], 1: []}
    for _ in range(count):
        turns = [0, 1]
        random.shuffle(turns)  # no secret hangs on it
        for turn in turns:
            (flush or sides[turn])()
            times[turn].append(sides[turn]())
    return Paired(tuple(times[0]), tuple(times[1]))
