"""Pairs of timed calls: the ratio is taken within a pair, and how many there are follows from the effort."""

from __future__ import annotations

import time

import pytest

from deploy_attn.engines.pairs import Effort, Paired, paired, warm_up


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
    assert found.slow
    assert Paired((5.0,), (2.0,)).as_dict() == {"median": 2.5, "p10": 2.5, "p90": 2.5, "pairs": 1}


def test_a_warm_up_ends_after_ten_calls_or_a_second() -> None:
    calls: list[float] = []
    warm_up(lambda: calls.append(time.perf_counter()))
    assert len(calls) == 10
    slow: list[float] = []

    def slow_call() -> None:
        time.sleep(0.6)
        slow.append(time.perf_counter())

    warm_up(slow_call)
    assert len(slow) == 2
