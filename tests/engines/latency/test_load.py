"""What else ran: from the kernel's counters, with what this process used itself taken away."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deploy_attn.engines.latency import load
from deploy_attn.engines.latency.load import Load, Reading, load_between, read_load, reasons_of


def test_what_this_process_used_is_not_background() -> None:
    found = load_between(Reading(0.0, 100.0, 5.0, 0.0), Reading(2.0, 104.0, 7.0, 0.0))
    assert found is not None
    assert (found.seconds, found.others, found.stolen) == (2.0, 1.0, 0.0)


def test_counters_that_lag_behind_give_no_negative_load() -> None:
    found = load_between(Reading(0.0, 100.0, 5.0, 3.0), Reading(2.0, 101.0, 7.0, 2.0))
    assert found is not None
    assert (found.others, found.stolen) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("seconds", "others", "stolen", "cpus", "reasons"),
    [
        (1.0, 0.1, 0.0, 2, ()),
        (1.0, 0.5, 0.0, 2, ("other processes used 0.5 cores",)),
        (1.0, 0.5, 0.0, 16, ()),
        (1.0, 1.5, 0.0, 16, ("other processes used 1.5 cores",)),
        (1.0, 0.0, 0.3, 2, ("other virtual machines took 0.3 cores",)),
        (0.05, 0.4, 0.0, 2, ()),
        (1.0, 0.4, 0.0, 1, ("other processes used 0.4 cores",)),
        (1.0, 0.1, 0.0, 1, ()),
    ],
    ids=["quiet", "busy", "a part of many", "busy too", "stolen", "a tick or two", "one processor", "one, quiet"],
)
def test_a_block_is_spoiled_by_a_part_of_the_processors(
    seconds: float, others: float, stolen: float, cpus: int, reasons: tuple[str, ...]
) -> None:
    assert reasons_of([Load(seconds, others, stolen, cpus)]) == reasons


def test_disturbances_of_one_kind_are_told_once_with_their_range() -> None:
    loads = [Load(1.0, 0.52, 0.0, 2), Load(1.0, 0.0, 0.0, 2), Load(1.0, 1.4, 0.0, 2), Load(1.0, 0.0, 0.3, 2)]
    assert reasons_of(loads) == ("other processes used 0.5 to 1.4 cores", "other virtual machines took 0.3 cores")


def test_a_reading_follows_the_counters_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 999 5 1 2 7 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n", encoding="ascii")
    monkeypatch.setattr(load, "_STAT", stat)
    found = read_load()
    assert found is not None
    assert (found.busy, found.stolen) == (1.53, 0.07)


@pytest.mark.parametrize("content", ["", "cpu 1 2\n", "cpu  a b c d e f g h\n", None])
def test_where_the_kernel_counts_nothing_the_load_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    stat = tmp_path / "stat"
    if content is not None:
        stat.write_text(content, encoding="ascii")
    monkeypatch.setattr(load, "_STAT", stat)
    assert read_load() is None
    assert load_between(None, None) is None


def test_two_readings_at_once_have_nothing_between_them() -> None:
    reading = Reading(1.0, 1.0, 1.0, 1.0)
    assert load_between(reading, reading) is None


def test_this_process_s_own_work_is_its_own() -> None:
    before = read_load()
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass
    after = read_load()
    assert before is not None
    assert after is not None
    assert after.own - before.own >= 0.05
    assert after.clock > before.clock
