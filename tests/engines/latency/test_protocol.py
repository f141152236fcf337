"""The protocol: what is compared with what, how many pairs, which blocks count, and what the report says."""

from __future__ import annotations

import gc
import itertools
import json
import random
from collections import Counter

import numpy as np
import pytest

from deploy_attn.engines.latency.protocol import Effort, compare
from deploy_attn.jetson.errors import BadRequest
from tests.engines.latency.fakes import bench, candidate, machine, steady


def test_a_candidate_is_compared_with_the_baseline_and_with_its_twin() -> None:
    found = compare(steady("new", 1.0), steady("twin", 1.0), steady("old", 2.0), Effort(pairs=40), bench())
    assert found.pairs.ratio == 2.0
    assert found.control.ratio == 1.0
    assert len(found.pairs.ratios) == len(found.control.ratios) == 40
    assert found.error == 0.0
    assert found.claim == "new is 2.00 times as fast as old, give or take 0.0 %."
    assert found.refused == ""


def test_the_document_is_json_with_both_sides_and_the_conditions() -> None:
    place = bench()
    found = compare(steady("new", 0.002), steady("twin", 0.002), steady("old", 0.003), Effort(pairs=30), place)
    document = found.as_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["candidate"]["latency"]["median_ms"] == pytest.approx(2.0)
    assert document["baseline"]["latency"]["median_ms"] == pytest.approx(3.0)
    assert len(document["baseline"]["latency"]["quantiles_ms"]) == 21
    conditions = document["conditions"]
    assert (conditions["cache"], conditions["flushed_bytes"], conditions["primed"]) == ("hot", None, True)
    assert conditions["background_cores"] == 0.0
    assert set(conditions["warm_up"]) == {"candidate", "baseline"}
    assert conditions["machine"]["cpus"] >= 1


def test_two_candidates_at_a_time_run_each_after_itself() -> None:
    calls: list[str] = []
    sides = [steady(label, 1.0, calls) for label in ("new", "twin", "old")]
    compare(sides[0], sides[1], sides[2], Effort(pairs=20), bench())
    timed = calls[-2 * 4 * 20 :]
    control, versus = timed[: 4 * 20], timed[4 * 20 :]
    for half, names in ((control, {"new", "twin"}), (versus, {"new", "old"})):
        assert half[::2] == half[1::2], "each timed call comes after an untimed one of the same side"
        assert Counter(half) == dict.fromkeys(names, 40)
    assert {versus[place] for place in range(0, 80, 4)} == {"new", "old"}, "the order of a pair is drawn"


def test_a_cold_call_comes_after_a_flush_and_not_after_itself() -> None:
    calls: list[str] = []
    place = bench()
    cold = type(place)(watch=place.watch, warm_up=place.warm_up, flush=lambda: calls.append("flush"))
    sides = [steady(label, 1.0, calls) for label in ("new", "twin", "old")]
    found = compare(sides[0], sides[1], sides[2], Effort(pairs=20, cold=True), cold)
    timed = calls[-2 * 4 * 20 :]
    assert set(timed[::2]) == {"flush"}
    assert "flush" not in timed[1::2]
    assert (found.conditions["cache"], found.conditions["primed"]) == ("cold", False)


def test_without_a_baseline_the_candidate_is_its_own_and_nothing_is_claimed() -> None:
    found = compare(steady("new", 1.0), steady("twin", 1.0), None, Effort(pairs=30), bench())
    assert found.baseline.label == "itself"
    assert found.pairs == found.control
    assert found.claim is None
    assert "no baseline" in found.refused


@pytest.mark.parametrize(
    ("effort", "both_s", "pairs"),
    [
        (Effort(), 0.001, 1000),
        (Effort(), 0.05, 200),
        (Effort(), 10.0, 30),
        (Effort(seconds=1.0, least=1), 0.5, 2),
        (Effort(seconds=1.0, least=1), 10.0, 1),
        (Effort(pairs=7), 10.0, 7),
        (Effort(pairs=5000), 1e-12, 5000),
        (Effort(), 0.0, 1000),
    ],
    ids=["at most 1000", "ten seconds", "at least 30", "as asked", "one", "so many", "or more", "no time at all"],
)
def test_the_number_of_pairs_follows_the_effort(effort: Effort, both_s: float, pairs: int) -> None:
    assert effort.count(both_s) == pairs


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"pairs": 0}, "1 to"),
        ({"pairs": -3}, "1 to"),
        ({"pairs": 10**9}, "1 to"),
        ({"seconds": 0.0}, "more than 0"),
        ({"seconds": float("nan")}, "more than 0"),
        ({"seconds": float("inf")}, "up to 3600"),
    ],
)
def test_what_cannot_be_measured_is_refused(asked: dict[str, float], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Effort(**asked)  # type: ignore[arg-type]


def test_a_block_stands_between_two_looks_at_an_idle_process_and_no_collector_runs_in_it() -> None:
    told: list[str] = []
    quiet = machine()
    watch = type(quiet)(quiet.read, lambda seconds: told.append("sleep"))

    def timed() -> float:
        told.append("collected" if gc.isenabled() else "call")
        return 1.0

    compare(candidate("new", timed), steady("twin", 1.0), None, Effort(pairs=1), bench(watch))
    assert told[-4:] == ["sleep", "call", "call", "sleep"]
    assert gc.isenabled()


def test_a_block_in_which_something_ran_is_repeated_and_reported() -> None:
    place = bench(machine([1.5]))
    found = compare(steady("new", 1.0), steady("twin", 1.0), steady("old", 2.0), Effort(pairs=40), place)
    assert (found.blocks.kept, found.blocks.repeated, found.blocks.spoiled) == (2, 1, 0)
    assert found.blocks.reasons == ("other processes used 1.5 cores",)
    assert len(found.pairs.ratios) == 40, "pairs of a repeated block are thrown away"
    assert found.claim is not None


def test_the_background_is_that_of_the_busier_of_the_two_series() -> None:
    place = bench(machine([0.09, 0.04]))
    found = compare(steady("new", 1.0), steady("twin", 1.0), steady("old", 2.0), Effort(pairs=1), place)
    assert (found.blocks.repeated, found.conditions["background_cores"]) == (0, pytest.approx(0.09))


def test_repeating_has_an_end_and_a_claim_says_that_the_machine_was_not_quiet() -> None:
    place = bench(machine(itertools.repeat(1.5)))
    found = compare(steady("new", 1.0), steady("twin", 1.0), steady("old", 2.0), Effort(pairs=40), place)
    assert found.blocks.repeated == 8
    assert found.blocks.spoiled == found.blocks.kept == 2
    assert found.blocks.reasons == ("other processes used 1.5 cores",)
    assert found.claim is not None
    assert found.claim.endswith("on a machine that other programs used as well.")
    assert found.conditions["background_cores"] == 1.5
    assert found.as_dict()["blocks"]["spoiled"] == 2


def test_a_hypervisor_that_takes_the_processor_spoils_a_block_too() -> None:
    place = bench(machine(stolen_cores=0.5))
    found = compare(steady("new", 1.0), steady("twin", 1.0), steady("old", 2.0), Effort(pairs=30), place)
    assert found.blocks.reasons == ("other virtual machines took 0.5 cores",)


def test_where_the_load_is_not_told_no_block_is_repeated() -> None:
    watch = type(machine())(lambda: None, lambda seconds: None)
    found = compare(steady("new", 1.0), steady("twin", 1.0), steady("old", 2.0), Effort(pairs=30), bench(watch))
    assert found.blocks.repeated == 0
    assert found.conditions["background_cores"] is None
    assert found.claim is not None


def test_a_noisy_control_takes_the_claim_away() -> None:
    random.seed(1)  # which draws the order of a pair
    drawn = np.random.default_rng(1)
    found = compare(
        candidate("new", lambda: drawn.uniform(0.5, 1.5)),
        candidate("twin", lambda: drawn.uniform(0.5, 1.5)),
        candidate("old", lambda: 1.12 * drawn.uniform(0.5, 1.5)),
        Effort(pairs=30),
        bench(),
    )
    assert found.error > 0.12
    assert found.claim is None
    assert "the control" in found.refused


def test_a_shift_of_the_control_takes_the_claim_away_however_steady_it_is() -> None:
    found = compare(steady("new", 1.0), steady("twin", 1.2), steady("old", 1.15), Effort(pairs=40), bench())
    assert found.error == pytest.approx(1 / 1.2 - 1, abs=0.4)
    assert found.error > 0.15
    assert found.claim is None


def test_progress_is_told_before_the_first_block_and_after_the_last() -> None:
    events: list[dict[str, object]] = []
    place = bench()
    told = type(place)(watch=place.watch, warm_up=place.warm_up, on_progress=lambda event: events.append(dict(event)))
    compare(steady("new", 1.0), steady("twin", 1.0), steady("old", 1.0), Effort(pairs=3), told)
    assert events[0] == {"phase": "new against old", "step": 0, "steps": None}
    assert events[-1]["step"] == events[-1]["steps"]
    assert [event["step"] for event in events[1:]] == list(range(len(events) - 1))
