"""Sides that take turns: nobody else's threads run meanwhile, and each is awake when it is timed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from deploy_attn.engines.pairs import Stopwatch, timed_pairs
from deploy_attn.tuning.turns import NotAtRest, Pace, Turns

SPINS_S = 0.05


@dataclass
class Machine:
    """A clock on which calls take a millisecond; after a side that spins has run, its threads go on for a while."""

    spins_s: float = SPINS_S
    now: float = 0.0
    used: float = 0.0
    until: float = 0.0  # when the last threads that spin end
    spinner: str = ""
    ran: list[str] = field(default_factory=list)
    disturbed: list[str] = field(default_factory=list)

    @property
    def pace(self) -> Pace:
        return Pace(lambda: self.now, lambda: self.used, self.wait)

    def wait(self, seconds: float) -> None:
        spent = min(max(self.until - self.now, 0.0), seconds)
        self.now, self.used = self.now + seconds, self.used + spent

    def side(self, name: str, spins: bool) -> Stopwatch:
        def once() -> float:
            if self.now < self.until and self.spinner != name:
                self.disturbed.append(name)
            self.ran.append(name)
            self.wait(0.001)
            self.used += 0.001
            if spins:
                self.spinner, self.until = name, self.now + self.spins_s
            return 0.001

        return once


def test_no_side_runs_while_the_threads_of_another_spin() -> None:
    machine = Machine()
    turns = Turns(True, machine.pace)
    sides = (turns.of(machine.side("one", True)), turns.of(machine.side("other", False)))
    timed_pairs(sides, 20)
    assert machine.disturbed == []
    bare = (machine.side("one", True), machine.side("other", False))
    timed_pairs(bare, 20)
    assert machine.disturbed, "without turns it would"


def test_a_side_is_called_until_it_is_awake_only_where_the_turn_changes() -> None:
    machine = Machine()
    turns = Turns(True, machine.pace)
    one, other = (turns.of(machine.side(name, False)) for name in ("one", "other"))
    one()
    first = machine.ran.count("one")
    assert first >= 3, "calls of a millisecond before the one that counts"
    assert one() == 0.001
    assert machine.ran.count("one") == first + 1
    other()
    assert machine.ran[-1] == "other"
    assert machine.ran.count("other") == first


def test_where_nothing_spins_a_side_is_left_as_it_is() -> None:
    side = Machine().side("one", False)
    assert Turns(False).of(side) is side


def test_threads_without_a_pause_are_an_error() -> None:
    machine = Machine(spins_s=60.0)
    turns = Turns(True, machine.pace)
    one, other = (turns.of(machine.side(name, True)) for name in ("one", "other"))
    one()
    with pytest.raises(NotAtRest, match="other threads of this process ran for 2 s"):
        other()
    assert machine.now < 3.0
