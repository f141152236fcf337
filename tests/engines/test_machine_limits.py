"""What a machine does at most: the best run of the best kernel, again where something else ran, stored and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_attn.engines import machine_limits
from deploy_attn.engines.json_fields import Fields
from deploy_attn.engines.latency.load import Reading
from deploy_attn.engines.limit_kernels import Kernel
from deploy_attn.engines.machine_limits import Tries, limits_from_fields, measured_limits
from deploy_attn.engines.roofline import BANDWIDTH
from deploy_attn.jetson.errors import BadRequest
from tests.engines.latency.fakes import LIMITS


def kernel(name: str, amount: float, *seconds: float) -> Kernel:
    """One whose passes take these times, run by run, and then the last of them."""
    times = iter(seconds)
    last = [0.0]

    def run(passes: int) -> float:
        last[0] = next(times, last[0])
        return passes * last[0]

    return Kernel(name, amount, run)


def ticking() -> Callable[[], float]:
    """A clock on which each look is a millisecond later."""
    ticks = count()
    return lambda: next(ticks) / 1000


def tries(**rates: float) -> Tries:
    """Kernels that reach these rates in 10^9 a second: `hot`, `memory`, `node`, `fp32`, `fp16`."""
    given = {"hot": 100.0, "memory": 30.0, "node": 50.0, "fp32": 200.0, "fp16": 100.0, **rates}

    def moving(size: int, threads: int, held: ExitStack) -> Sequence[Kernel]:
        name = "memory" if size == machine_limits._memory_bytes() else "hot"
        return [kernel(name, size, size / given[name] / 1e9), kernel("a slow one", size, size / 1e9)]

    def nodes(size: int, threads: int, held: ExitStack) -> Sequence[Kernel]:
        return [kernel("node", size, size / given["node"] / 1e9)]

    def computing(kind: str, threads: int, held: ExitStack) -> Sequence[Kernel]:
        return [kernel(kind, 1e9, 1 / given[kind])]

    return Tries(moving, nodes, computing, ticking(), lambda: None)


def test_the_fastest_kernel_of_each_kind_is_the_limit_and_is_named() -> None:
    found = measured_limits(1_600_000, 2, tries())
    assert (found.threads, found.hot_bytes, found.disturbed) == (2, 1_600_000, "")
    assert found.hot_gb_per_s == pytest.approx(100)
    assert found.memory_gb_per_s == pytest.approx(30)
    assert found.fp32_gflops == pytest.approx(200)
    assert found.kernels == {"hot": "hot", "memory": "memory", "fp32": "fp32", "fp16": "fp32"}
    assert set(found.versions) == {"numpy", "onnxruntime"}


@pytest.mark.parametrize(
    ("rates", "limit", "rate", "by"),
    [
        ({"node": 120.0}, "hot_gb_per_s", 120, ("hot", "node")),
        ({"memory": 130.0}, "hot_gb_per_s", 130, ("hot", "memory")),
        ({"fp16": 400.0}, "fp16_gflops", 400, ("fp16", "fp16")),
        ({"fp32": 300.0}, "fp16_gflops", 300, ("fp16", "fp32")),
    ],
)
def test_what_is_faster_elsewhere_is_a_limit_here_too(
    rates: dict[str, float], limit: str, rate: float, by: tuple[str, str]
) -> None:
    found = measured_limits(1_600_000, 1, tries(**rates))
    assert getattr(found, limit) == pytest.approx(rate)
    assert found.kernels[by[0]] == by[1]


@given(st.lists(st.floats(1e-4, 10), min_size=3, max_size=10))
def test_no_run_of_a_kernel_is_above_its_limit(times: list[float]) -> None:
    found = machine_limits._highest(kernel("any", 1.0, *times), ticking())
    assert found >= 1 / min(times[:3]) * (1 - 1e-9)
    assert found <= 1 / min(times) * (1 + 1e-9)


def test_a_kernel_is_run_until_its_time_is_over_and_short_passes_are_run_together() -> None:
    asked: list[int] = []

    def seconds(passes: int) -> float:
        asked.append(passes)
        return passes * 1e-6

    machine_limits._highest(Kernel("short", 1.0, seconds), ticking())
    assert asked[:2] == [1, 1]
    assert set(asked[2:]) == {3000}
    assert 10 < len(asked) < 40


@pytest.mark.parametrize(("size", "kept"), [(1, 256 << 10), (10**15, None), (5_000_000, 5_000_000)])
def test_maps_that_are_too_small_or_larger_than_the_caches_are_measured_at_what_can_be(
    size: int, kept: int | None
) -> None:
    found = measured_limits(size, 1, tries())
    assert found.hot_bytes == (found.memory_bytes if kept is None else kept)


@pytest.mark.parametrize(
    ("cache", "memory"), [(None, 128 << 20), (1 << 20, 32 << 20), (32 << 20, 64 << 20), (1 << 30, 256 << 20)]
)
def test_memory_is_more_than_the_caches_hold_within_bounds(
    cache: int | None, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_limits, "largest_cache_bytes", lambda: cache)
    assert measured_limits(1, 1, tries()).memory_bytes == memory


def busy(attempts: int) -> Iterator[Reading]:
    """Readings before and after each attempt; two cores are used by others in so many of them."""
    for place in count():
        yield Reading(float(2 * place), 0.0, 0.0, 0.0)
        yield Reading(2.0 * place + 1, 2.0 if place < attempts else 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("attempts", "made", "disturbed"), [(0, 1, ""), (1, 2, ""), (9, 3, "other processes used")])
def test_where_something_else_ran_it_is_measured_again_and_the_best_of_all_counts(
    attempts: int, made: int, disturbed: str
) -> None:
    readings, rates = busy(attempts), iter((300.0, 100.0, 200.0))
    asked: list[float] = []

    def computing(kind: str, threads: int, held: ExitStack) -> Sequence[Kernel]:
        if kind == "fp32":
            asked.append(next(rates))
        return [kernel(kind, 1e9, 1 / asked[-1])]

    found = measured_limits(1, 1, replace(tries(), computing=computing, read=lambda: next(readings)))
    assert len(asked) == made
    assert found.fp32_gflops == pytest.approx(300)
    assert found.disturbed.startswith(disturbed)
    assert bool(found.disturbed) == bool(disturbed)


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("can't start new thread")])
def test_what_cannot_be_measured_is_told_as_one_error(error: Exception) -> None:
    def failing(size: int, threads: int, held: ExitStack) -> Sequence[Kernel]:
        raise error

    with pytest.raises(BadRequest, match=f"on 3 thread.* could not be measured: .*{error}"):
        measured_limits(1, 3, replace(tries(), moving=failing))


@pytest.mark.parametrize(
    ("cold", "rate", "note"),
    [(False, 140.0, "a copy, 1.6 MB in hot caches, 2 threads"), (True, 40.0, "a sum, 64 MB in memory, 2 threads")],
)
def test_the_cache_regime_decides_which_bandwidth_a_target_has(cold: bool, rate: float, note: str) -> None:
    target = LIMITS.target(cold)
    fact = target.facts[BANDWIDTH]
    assert (fact.value, fact.mark, fact.note) == (rate, "measured here", note)
    assert target.value("device.peak_fp32_tflops") == 0.24
    assert target.value("device.peak_fp16_tflops") == 0.48
    assert target.name == "onnxruntime-cpu"


def stored(**changed: Any) -> Fields:
    document = json.loads(json.dumps(LIMITS.as_dict(), allow_nan=False))
    return Fields(Path("bench.json"), {**document, **changed}, "Measure again.", "limits.")


def test_limits_are_read_as_they_were_stored() -> None:
    assert limits_from_fields(stored()) == LIMITS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threads", 0),
        ("threads", 1 << 40),
        ("threads", True),
        ("hot_gb_per_s", 0),
        ("hot_gb_per_s", None),
        ("memory_gb_per_s", -1),
        ("fp32_gflops", 1e300),
        ("fp16_gflops", "240"),
        ("hot_bytes", 1.5),
        ("kernels", {"hot": "a copy"}),
        ("kernels", []),
        ("disturbed", None),
        ("versions", {"numpy": 2}),
    ],
)
def test_limits_that_are_none_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(BadRequest, match=rf"limits\.{key}"):
        limits_from_fields(stored(**{key: value}))
