"""What else used the processors while something was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_BUSY = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq: columns of /proc/stat
_STOLEN = 7
_PART = 0.05  # of all processors, what a quiet desktop uses; more is felt through caches, memory and clocks
_COUNTING_S = 0.02  # the kernel counts in ticks of 10 ms, so less is not to be told from nothing


@dataclass(frozen=True)
class Reading:
    """Seconds since some start: on the clock, of all processors, of this process, and taken by the hypervisor."""

    clock: float
    busy: float
    own: float
    stolen: float


@dataclass(frozen=True)
class Load:
    """Between two readings, in cores: what other processes used and what other virtual machines took, of `cpus`."""

    seconds: float
    others: float
    stolen: float
    cpus: int

    @property
    def disturbance(self) -> tuple[str, float] | None:
        """Why a measurement meanwhile does not count: what others did, on how many cores. None where it does."""
        allowed = _PART * max(self.cpus, 2) + _COUNTING_S / self.seconds
        if self.others > allowed:
            return "other processes used", self.others
        return ("other virtual machines took", self.stolen) if self.stolen > allowed else None

    @property
    def reason(self) -> str:
        """The disturbance as text; empty where there is none."""
        return "".join(reasons_of([self]))


def reasons_of(loads: Iterable[Load]) -> tuple[str, ...]:
    """The disturbances of all, one for each kind with its range; empty where nothing was disturbed."""
    cores: dict[str, list[float]] = {}
    for kind, used in filter(None, (load.disturbance for load in loads)):
        cores.setdefault(kind, []).append(used)
    return tuple(f"{kind} {_range(found)} cores" for kind, found in cores.items())


def _range(values: list[float]) -> str:
    return " to ".join(dict.fromkeys(f"{value:.1f}" for value in (min(values), max(values))))


def read_load() -> Reading | None:
    """A reading; None where the kernel does not count, which is everywhere but on Linux."""
    try:
        first = _STAT.read_text(encoding="ascii").splitlines()[0].split()
        ticks = [int(value) for value in first[1:]]
        per_second = os.sysconf("SC_CLK_TCK")
        busy = sum(ticks[column] for column in _BUSY) / per_second
        return Reading(time.monotonic(), busy, time.process_time(), ticks[_STOLEN] / per_second)
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def load_between(before: Reading | None, after: Reading | None) -> Load | None:
    """None where either reading is missing or no time is between them."""
    if before is None or after is None or after.clock <= before.clock:
        return None
    seconds = after.clock - before.clock
    others = max(after.busy - before.busy - (after.own - before.own), 0.0)
    stolen = max(after.stolen - before.stolen, 0.0)
    return Load(seconds, others / seconds, stolen / seconds, os.cpu_count() or 1)
