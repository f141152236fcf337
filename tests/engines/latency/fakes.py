"""Candidates with a clock of their own, and machines whose load and limits are written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat

from deploy_attn.engines.latency.blocks import Watch
from deploy_attn.engines.latency.load import Reading
from deploy_attn.engines.latency.protocol import Bench
from deploy_attn.engines.latency.result import Candidate
from deploy_attn.engines.machine_limits import Limits
from deploy_attn.jetson.timing import Options

AT_ONCE = Options(warm_up=0.0, longest_warm_up=0.0)
BLOCK_S = 1.0
LIMITS = Limits(
    threads=2,
    hot_bytes=1_600_000,
    hot_gb_per_s=140.0,
    memory_bytes=64_000_000,
    memory_gb_per_s=40.0,
    fp32_gflops=240.0,
    fp16_gflops=480.0,
    kernels={"hot": "a copy", "memory": "a sum", "fp32": "a product", "fp16": "a half product"},
    disturbed="",
    versions={"numpy": "2"},
)


def candidate(label: str, seconds: Callable[[], float], calls: list[str] | None = None) -> Candidate:
    """Something that takes as long as it is told to, and notes that it was called."""

    def stopwatch() -> float:
        if calls is not None:
            calls.append(label)
        return seconds()

    return Candidate(label, stopwatch, {"engine": "a fake"}, stopwatch)


def steady(label: str, seconds: float, calls: list[str] | None = None) -> Candidate:
    return candidate(label, lambda: seconds, calls)


def machine(busy_cores: Iterable[float] = (), stolen_cores: float = 0.0) -> Watch:
    """A machine on which others use so many cores in one block after the other, and none in those that follow."""
    cores: Iterator[float] = chain(busy_cores, repeat(0.0))
    state = {"clock": 0.0, "busy": 0.0, "stolen": 0.0, "looks": 0.0}

    def read() -> Reading:
        state["looks"] += 1
        if state["looks"] % 2 == 0:  # the second look of a block
            state["clock"] += BLOCK_S
            state["busy"] += BLOCK_S * next(cores)
            state["stolen"] += BLOCK_S * stolen_cores
        return Reading(state["clock"], state["busy"], 0.0, state["stolen"])

    return Watch(read, lambda seconds: None)


def bench(watch: Watch | None = None) -> Bench:
    return Bench(watch=watch or machine(), warm_up=AT_ONCE)
