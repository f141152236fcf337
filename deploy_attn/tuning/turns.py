"""Sides that take turns, each awake while the threads of the others are at rest.

A session of onnxruntime that is left as it is has threads that wait for work by
running, for some 50 ms after a call: they would take the cores from whichever
side is timed next. So before a side's turn nobody of this process runs any more,
and then the side itself is called until its own threads and caches are awake.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from deploy_attn.engines.pairs import Stopwatch
from deploy_attn.jetson.errors import DeployAttnError

_LOOK_S = 0.01
_PART = 0.1  # of a core, for what counts as rest
_LONGEST_S = 2.0
_AWAKE_S = 0.005


class NotAtRest(DeployAttnError):
    """Something of this process runs on, so no side can have the cores for itself."""


@dataclass(frozen=True)
class Pace:
    """How time passes: the clock, the seconds of all cores that this process used, and what waits."""

    clock: Callable[[], float] = time.perf_counter
    used: Callable[[], float] = time.process_time
    sleep: Callable[[float], None] = time.sleep


class Turns:
    """The sides of one comparison.

    Args:
        needed: whether any of them spins; where none does, a turn costs nothing.
    """

    def __init__(self, needed: bool, pace: Pace | None = None) -> None:
        self.needed = needed
        self._pace = pace or Pace()
        self._last: Stopwatch | None = None

    def of(self, side: Stopwatch) -> Stopwatch:
        """The same side, which waits for its turn where another one ran last.

        Raises:
            NotAtRest: when it is called, and the wait has no end.
        """
        if not self.needed:
            return side

        def once() -> float:
            if self._last is not side:
                self._rest()
                self._wake(side)
                self._last = side
            return side()

        return once

    def _rest(self) -> None:
        ends = self._pace.clock() + _LONGEST_S
        while True:
            used, began = self._pace.used(), self._pace.clock()
            self._pace.sleep(_LOOK_S)
            now = self._pace.clock()
            if self._pace.used() - used < _PART * (now - began):
                return
            if now >= ends:
                raise NotAtRest(f"other threads of this process ran for {_LONGEST_S:g} s without a pause")

    def _wake(self, side: Stopwatch) -> None:
        ends = self._pace.clock() + _AWAKE_S
        while True:
            side()
            if self._pace.clock() >= ends:
                return
