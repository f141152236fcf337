"""Pairs in blocks, each between two looks at what else the machine does; a block in which something ran is redone."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from deploy_attn.engines.latency.load import Load, Reading, load_between, read_load, reasons_of
from deploy_attn.engines.latency.result import Blocks
from deploy_attn.engines.pairs import Call, Paired, Stopwatch, timed_pairs

_LOOK_S = 0.02  # of doing nothing before and after a block, in which only others can be busy

Sides = tuple[Stopwatch, Stopwatch]


@dataclass(frozen=True)
class Watch:
    """How the machine is looked at: its reading, and what passes the time between."""

    read: Callable[[], Reading | None] = read_load
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Series:
    """Pairs of the same two sides, block by block, and what happened meanwhile.

    Args:
        sides: first the baseline.
        flush: empties the caches before each timed call; without it an untimed call fills them.
        repeats: so many blocks may be redone.
    """

    sides: Sides
    flush: Call | None
    repeats: int
    watch: Watch = field(default_factory=Watch)
    pairs: Paired = field(default_factory=Paired)
    loads: list[Load] = field(default_factory=list)
    kept: int = 0
    repeated: int = 0
    spoiled: int = 0
    disturbed: list[Load] = field(default_factory=list)

    def add_block(self, count: int) -> None:
        """So many pairs more; those of a block in which something else ran only where no repeat is left."""
        while True:
            found, load = self._block(count)
            if load is None or load.disturbance is None:
                break
            self.disturbed.append(load)
            if self.repeats == 0:
                self.spoiled += 1
                break
            self.repeats -= 1
            self.repeated += 1
        self.kept += 1
        self.pairs = self.pairs.joined(found)
        if load is not None:
            self.loads.append(load)

    @property
    def others(self) -> float | None:
        """Cores that other processes used during the blocks that were kept, their median; None where it is not told."""
        return statistics.median(load.others for load in self.loads) if self.loads else None

    def _block(self, count: int) -> tuple[Paired, Load | None]:
        before = self.watch.read()
        self.watch.sleep(_LOOK_S)
        with _collector_off():
            found = timed_pairs(self.sides, count, self.flush)
        self.watch.sleep(_LOOK_S)
        return found, load_between(before, self.watch.read())


def blocks_of(series: Sequence[Series]) -> Blocks:
    """The blocks of several series together."""
    return Blocks(
        kept=sum(one.kept for one in series),
        repeated=sum(one.repeated for one in series),
        reasons=reasons_of(load for one in series for load in one.disturbed),
        spoiled=sum(one.spoiled for one in series),
    )


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    """Python's garbage collector stops whatever runs."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
