"""The protocol of a comparison: warm up, pairs in blocks, the control beside them, and what may be claimed.

A side's times depend on what ran before it, on the state of the caches and on
what else the machine does. So two candidates at a time are compared, in pairs
of random order; the candidate is compared with a second instance of itself in
the same way, block by block in turn with the baseline, and how far that ratio
is from 1 is the error bar of the other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy_attn.engines.latency.blocks import Series, Sides, Watch, blocks_of
from deploy_attn.engines.latency.cache import Flush
from deploy_attn.engines.latency.claim import FEWEST_PAIRS, Claim, claim_of
from deploy_attn.engines.latency.machine import machine
from deploy_attn.engines.latency.result import Candidate, Comparison
from deploy_attn.engines.pairs import Call, timed_pairs, warm_up
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.timing import Options, WarmUp

ITSELF = "itself"  # the baseline's label where there is none but the candidate
_SECONDS = 10.0
_MOST_PAIRS = 1000
_MOST_ASKED = 100_000
_LONGEST_S = 3600.0
_BLOCK_S = 0.5
_FEWEST_REPEATS = 4
_PILOT_PAIRS = 2
_WARM_UP = Options(warm_up=0.2, longest_warm_up=2.0, agreement=0.05)

_ALONE = Claim(None, "There is no baseline: name another artifact, or a rival with --against.")

Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Effort:
    """How long and in which cache regime to measure.

    Attributes:
        pairs: so many, however long that takes; None for as many as the seconds hold.
        seconds: about so long for the pairs and those of the control; None for ten.
        cold: caches are emptied before each timed call.
        least: so many pairs, where the seconds hold fewer.

    Raises:
        BadRequest: what cannot be.
    """

    pairs: int | None = None
    seconds: float | None = None
    cold: bool = False
    least: int = FEWEST_PAIRS

    def __post_init__(self) -> None:
        if self.pairs is not None and not 1 <= self.pairs <= _MOST_ASKED:
            raise BadRequest(f"{self.pairs} pairs were asked for; possible are 1 to {_MOST_ASKED}.")
        if self.seconds is not None and not 0 < self.seconds <= _LONGEST_S:  # NaN is neither
            raise BadRequest(
                f"{self.seconds:g} seconds were asked for; possible are more than 0 and up to {_LONGEST_S:g}."
            )

    def count(self, both_s: float) -> int:
        """How many pairs, where one with its control's takes so many seconds."""
        if self.pairs is not None:
            return self.pairs
        return max(min(int((self.seconds or _SECONDS) / max(both_s, 1e-9)), _MOST_PAIRS), self.least)


@dataclass(frozen=True)
class Bench:
    """Where comparisons are made.

    Attributes:
        conditions: of all of them; JSON values only.
        on_progress: told `phase`, `step` and `steps`, None where they are not known yet, between blocks.
        flush: what empties the caches; one for each process is enough.
        watch: how the machine is looked at.
        warm_up: how long until a side is taken to be warm.
    """

    conditions: Mapping[str, Any] = field(default_factory=dict)
    on_progress: Progress | None = None
    flush: Call | None = None
    watch: Watch = field(default_factory=Watch)
    warm_up: Options = _WARM_UP

    def say(self, phase: str, step: int, steps: int | None) -> None:
        if self.on_progress is not None:
            self.on_progress({"phase": phase, "step": step, "steps": steps})


def title_of(candidate: str, baseline: str) -> str:
    """What progress calls a comparison of these labels."""
    return f"{candidate} against {baseline}"


def compare(
    candidate: Candidate,
    twin: Candidate,
    baseline: Candidate | None = None,
    effort: Effort | None = None,
    bench: Bench | None = None,
) -> Comparison:
    """Compares a candidate with a baseline.

    Args:
        candidate: what the question is about.
        twin: a second instance of it, for the control.
        baseline: what it is compared with; None for the candidate alone, whose ratio is then the control's.
        effort: how long, and in which cache regime.
        bench: conditions, progress, and what tests replace.
    """
    effort, bench = effort or Effort(), bench or Bench()
    flush = (bench.flush or Flush()) if effort.cold else None
    against = Candidate(ITSELF, twin.call, twin.conditions, twin.stopwatch) if baseline is None else baseline
    title = title_of(candidate.label, against.label)
    bench.say(title, 0, None)
    own, other = candidate.timer, against.timer
    sides: list[Sides] = [(own, twin.timer), *([] if baseline is None else [(other, own)])]
    warm = {name: warm_up(side, bench.warm_up) for name, side in (("candidate", own), ("baseline", other))}
    if baseline is not None:
        warm_up(sides[0][1], bench.warm_up)
    both_s = _pilot(sides, flush)
    count = effort.count(both_s)
    blocks = min(max(math.ceil(count * both_s / _BLOCK_S / len(sides)), 1), count)
    series = [Series(pair, flush, max(_FEWEST_REPEATS, blocks), bench.watch) for pair in sides]
    for done in range(blocks):
        bench.say(title, done, blocks)
        for one in series:
            one.add_block(count // blocks + (done < count % blocks))
    bench.say(title, blocks, blocks)
    conditions = {**bench.conditions, **_conditions(effort, flush, warm, series)}
    return _comparison(candidate, against, series, conditions)


def _pilot(sides: list[Sides], flush: Call | None) -> float:
    """About the seconds of one pair of each."""
    began = time.perf_counter()
    for pair in sides:
        timed_pairs(pair, _PILOT_PAIRS, flush)
    return (time.perf_counter() - began) / _PILOT_PAIRS


def _comparison(
    candidate: Candidate, baseline: Candidate, series: Sequence[Series], conditions: Mapping[str, Any]
) -> Comparison:
    control, versus, blocks = series[0].pairs, series[-1].pairs, blocks_of(series)
    claim = _ALONE if len(series) == 1 else claim_of(candidate.label, baseline.label, versus, control)
    said = claim.text
    if said is not None and blocks.spoiled:
        said = f"{said.rstrip('.')}, on a machine that other programs used as well."
    return Comparison(candidate, baseline, versus, control, blocks, said, claim.refused, conditions)


def _conditions(
    effort: Effort, flush: Call | None, warm: Mapping[str, WarmUp], series: Sequence[Series]
) -> dict[str, Any]:
    """What the figures depend on beside the sides themselves."""
    others = [one.others for one in series if one.others is not None]
    return {
        "cache": "cold" if effort.cold else "hot",
        "flushed_bytes": getattr(flush, "nbytes", None),
        "primed": not effort.cold,
        "order": "random within each pair",
        "warm_up": {name: dict(found._asdict()) for name, found in warm.items()},
        "background_cores": max(others, default=None),
        "machine": machine(),
    }
