"""Pairs of timed calls: the ratio is taken within a pair, and how many there are follows from the effort."""

from __future__ import annotations

import math
import time

import pytest

from deploy_attn.engines.pairs import Effort, Paired, paired, timed_pairs, wall_clock, warm_up
from deploy_attn.jetson.timing import Options


def test_the_slower_of_two_is_seen_in_the_ratio() -> None:
    found = paired(lambda: time.sleep(0.004), lambda: time.sleep(0.001), Effort(0.1, least=5))
    assert 2 < found.ratio < 5
    assert min(found.ratios) > 1


def test_every_timed_call_comes_after_one_of_the_same_candidate() -> None:
    calls: list[str] = []
    found = paired(lambda: calls.append("a"), lambda: calls.append("b"), Effort(0, least=40, most=40))
    timed = calls[2:]
    assert [timed[index] for index in range(0, len(timed), 2)] == [timed[index] for index in range(1, len(timed), 2)]
    assert len(timed) == 4 * len(found.ratios) == 160
    starts = {timed[index] for index in range(0, len(timed), 4)}
    assert starts == {"a", "b"}, "the order of a pair is drawn"


@pytest.mark.parametrize(
    ("seconds", "call_s", "pairs"),
    [(0, 0.0, 30), (10.0, 0.0, 300), (0, 0.06, 8)],
    ids=["at least 30", "at most 300", "fewer where a call is slow"],
)
def test_the_number_of_pairs_follows_the_effort(seconds: float, call_s: float, pairs: int) -> None:
    found = paired(lambda: time.sleep(call_s), lambda: None, Effort(seconds))
    assert len(found.ratios) == pairs
    assert found.as_dict()["pairs"] == pairs


def test_the_summary_is_of_the_ratios_and_not_of_the_times() -> None:
    found = Paired((1.0, 2.0, 30.0), (1.0, 1.0, 10.0))
    assert found.as_dict() == {"median": 2.0, "p10": 1.2, "p90": 2.8, "pairs": 3}
    assert found.joined(Paired((4.0,), (1.0,))).ratios == [1.0, 2.0, 3.0, 4.0]
    assert Paired((5.0,), (2.0,)).as_dict() == {"median": 2.5, "p10": 2.5, "p90": 2.5, "pairs": 1}


def test_a_warm_up_ends_when_two_windows_agree() -> None:
    calls: list[float] = []
    found = warm_up(
        lambda: calls.append(time.perf_counter()), Options(warm_up=0.01, longest_warm_up=5.0, agreement=0.9)
    )
    assert found.settled
    assert found.seconds < 5.0
    assert len(calls) == found.inferences
    assert len(calls) >= 6


def test_a_warm_up_that_never_settles_has_an_end() -> None:
    calls: list[int] = []

    def slower_each_time() -> None:
        calls.append(0)
        time.sleep(0.0005 * 2 ** len(calls))

    found = warm_up(slower_each_time, Options(warm_up=0.001, longest_warm_up=0.03, agreement=0.01))
    assert found.settled is False
    assert len(calls) < 10


@pytest.mark.parametrize("count", [1, 5, 6, 7, 8, 9, 20, 30, 100, 300, 1000])
def test_the_interval_of_the_median_holds_it_with_95_per_cent(count: int) -> None:
    """The coverage of order statistics is a binomial sum, whatever the ratios are distributed like."""
    low, high = Paired(tuple(float(place) for place in range(1, count + 1)), (1.0,) * count).interval
    rank = int(low)
    assert high == count + 1 - rank
    coverage = 1 - 2 * sum(math.comb(count, place) for place in range(rank)) / 2**count
    assert coverage >= 0.95 or rank == 1
    if count >= 100:
        assert coverage < 0.98, "not wider than need be"


def test_the_interval_narrows_with_more_pairs_and_follows_the_ratios() -> None:
    steps = [1 + 0.1 * math.sin(place) for place in range(400)]
    wide, narrow = (Paired(tuple(steps[:count]), (1.0,) * count).interval for count in (20, 400))
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
    assert narrow[0] < 1 < narrow[1]


def test_a_flush_takes_the_place_of_the_untimed_calls() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return 1.0

    found = timed_pairs((lambda: side("a"), lambda: side("b")), 5, lambda: calls.append("flush"))
    assert calls[::2] == ["flush"] * 10
    assert sorted(calls[1::2]) == ["a"] * 5 + ["b"] * 5
    assert found.ratios == [1.0] * 5


def test_the_wall_clock_gives_the_seconds_of_one_call() -> None:
    assert 0.005 <= wall_clock(lambda: time.sleep(0.005))() < 5
