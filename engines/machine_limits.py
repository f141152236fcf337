"""What this machine does at most: bytes moved and operations computed a second on some threads, measured here.

The profile of a CPU cannot tell its bandwidth and peak, since any machine may run it. So several kernels try, and the
best run of the best one is the limit: nothing that is timed beside it should come out above.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from deploy_attn.engines.json_fields import Fields
from deploy_attn.engines.latency.cache import largest_cache_bytes
from deploy_attn.engines.latency.load import Reading, load_between, read_load
from deploy_attn.engines.limit_kernels import Kernel, computing_kernels, moving_kernels, node_kernels
from deploy_attn.engines.target import MEASURED, Fact, Target, load_target
from deploy_attn.jetson.errors import BadRequest, first_line

PROFILE = "onnxruntime-cpu"
_KERNEL_S = 0.025  # for each kernel, and at least three runs
_RUN_S = 0.003
_ATTEMPTS = 3
_LEAST_BYTES = 256 << 10  # of less, what Python does between two passes is too large a part
_CACHES = 2  # of so many times the largest one, a pass finds nothing in it that the pass before left
_LEAST_MEMORY, _MOST_MEMORY, _UNKNOWN_MEMORY = 32 << 20, 256 << 20, 128 << 20
_LEAST_RATE, _MOST_RATE = 1e-3, 1e9  # 10^9 a second: no machine comes near either
_MOST_THREADS = 1 << 16


@dataclass(frozen=True)
class Limits:
    """The most that a machine did on so many threads.

    Attributes:
        hot_bytes: how much the kernels read and wrote in each pass, from whatever cache holds that.
        memory_bytes: the same, larger than the caches.
        kernels: the fastest ones, by what they were fastest at: `hot`, `memory`, `fp32`, `fp16`.
        disturbed: what else ran in each attempt, so that the machine may do more; empty where one had it for itself.
        versions: of what the kernels come from.
    """

    threads: int
    hot_bytes: int
    hot_gb_per_s: float
    memory_bytes: int
    memory_gb_per_s: float
    fp32_gflops: float
    fp16_gflops: float
    kernels: Mapping[str, str]
    disturbed: str
    versions: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def target(self, cold: bool) -> Target:
        """The profile of a CPU with these limits as facts, for data that lie in memory or in caches."""
        rate, size = (self.memory_gb_per_s, self.memory_bytes) if cold else (self.hot_gb_per_s, self.hot_bytes)
        place = "memory" if cold else "hot caches"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        mover = f"{self.kernels['memory' if cold else 'hot']}, {size / 1e6:.3g} MB in {place}"
        measured = {
            "device.bandwidth_gb_per_s": (rate, mover),
            "device.peak_fp32_tflops": (self.fp32_gflops / 1e3, self.kernels["fp32"]),
            "device.peak_fp16_tflops": (self.fp16_gflops / 1e3, self.kernels["fp16"]),
        }
        facts = {key: Fact(value, MEASURED, f"{note}, {threads}") for key, (value, note) in measured.items()}
        profile = load_target(PROFILE)
        return replace(profile, title=f"{threads}, {place}", facts={**profile.facts, **facts})


@dataclass(frozen=True)
class Tries:
    """What is tried, by which clock, and how the machine is looked at; tests put their own in its place.

    Attributes:
        moving: kernels that read and write so many bytes, on so many threads.
        nodes: the same, as nodes of a graph.
        computing: kernels that compute in `fp32` or `fp16`, on so many threads.
    """

    moving: Callable[[int, int, ExitStack], Sequence[Kernel]] = moving_kernels
    nodes: Callable[[int, int, ExitStack], Sequence[Kernel]] = node_kernels
    computing: Callable[[str, int, ExitStack], Sequence[Kernel]] = computing_kernels
    clock: Callable[[], float] = time.perf_counter
    read: Callable[[], Reading | None] = read_load


def measured_limits(size_bytes: int, threads: int, tries: Tries | None = None) -> Limits:
    """Measures them, in about half a second; again where something else ran meanwhile, and then the best of all counts.

    Args:
        size_bytes: about what a call of the graph in question reads and writes.

    Raises:
        BadRequest: they cannot be measured here.
    """
    tries = tries or Tries()
    memory_bytes = _memory_bytes()
    hot_bytes = min(max(size_bytes, _LEAST_BYTES), memory_bytes)
    best: dict[str, _Rate] = {}
    for _ in range(_ATTEMPTS):
        before = tries.read()
        try:
            found = _attempt(tries, hot_bytes, memory_bytes, threads)
        except Exception as error:  # an engine raises types of its own; threads and memory may run out
            raise BadRequest(
                f"What this machine does at most on {threads} thread(s) could not be measured: {first_line(error)}"
            ) from error
        best = {name: max(rate, best.get(name, rate)) for name, rate in found.items()}
        load = load_between(before, tries.read())
        disturbed = "" if load is None else load.reason
        if not disturbed:
            break
    import numpy
    import onnxruntime

    return Limits(
        threads=threads,
        hot_bytes=hot_bytes,
        hot_gb_per_s=best["hot"].giga,
        memory_bytes=memory_bytes,
        memory_gb_per_s=best["memory"].giga,
        fp32_gflops=best["fp32"].giga,
        fp16_gflops=best["fp16"].giga,
        kernels={name: rate.kernel for name, rate in best.items()},
        disturbed=disturbed,
        versions={"numpy": numpy.__version__, "onnxruntime": onnxruntime.__version__},
    )


def limits_from_fields(part: Fields) -> Limits:
    """Limits that were stored.

    Raises:
        BadRequest: they are none.
    """
    threads = part.count("threads")
    if not 1 <= threads <= _MOST_THREADS:
        part.refuse("threads", f"is {{}}, and not 1 to {_MOST_THREADS}")
    kernels, versions = part.part("kernels"), part.part("versions")
    return Limits(
        threads=threads,
        hot_bytes=part.count("hot_bytes"),
        hot_gb_per_s=_rate(part, "hot_gb_per_s"),
        memory_bytes=part.count("memory_bytes"),
        memory_gb_per_s=_rate(part, "memory_gb_per_s"),
        fp32_gflops=_rate(part, "fp32_gflops"),
        fp16_gflops=_rate(part, "fp16_gflops"),
        kernels={name: kernels.text(name) for name in ("hot", "memory", "fp32", "fp16")},
        disturbed=part.text("disturbed"),
        versions={package: versions.text(package) for package in versions.values},
    )


def _rate(part: Fields, key: str) -> float:
    value = part.number(key)
    if _LEAST_RATE <= value <= _MOST_RATE:
        return value
    return part.refuse(key, f"is {{}}, and not a number from {_LEAST_RATE:g} to {_MOST_RATE:g}")


def _memory_bytes() -> int:
    known = largest_cache_bytes()
    return _UNKNOWN_MEMORY if known is None else min(max(_CACHES * known, _LEAST_MEMORY), _MOST_MEMORY)


class _Rate(NamedTuple):
    """10^9 bytes or operations a second, and what reached that."""

    giga: float
    kernel: str


def _attempt(tries: Tries, hot_bytes: int, memory_bytes: int, threads: int) -> dict[str, _Rate]:
    """The best of each once; what is faster elsewhere could be done here as well."""

    def best(maker: Callable[[Any, int, ExitStack], Sequence[Kernel]], what: int | str) -> _Rate:
        with ExitStack() as held:
            return max(_Rate(_highest(one, tries.clock) / 1e9, one.name) for one in maker(what, threads, held))

    memory, fp32 = best(tries.moving, memory_bytes), best(tries.computing, "fp32")
    hot = max(best(tries.moving, hot_bytes), best(tries.nodes, hot_bytes), memory)
    return {"hot": hot, "memory": memory, "fp32": fp32, "fp16": max(best(tries.computing, "fp16"), fp32)}


def _highest(kernel: Kernel, clock: Callable[[], float]) -> float:
    """How much of it a second in its best run."""
    ends = clock() + _KERNEL_S
    passes, runs = 1, [(1, kernel.seconds(1))]  # touches memory and starts threads
    while len(runs) <= 2 or clock() < ends:
        runs.append((passes, kernel.seconds(passes)))
        passes = max(round(_RUN_S * passes / max(runs[-1][1], 1e-7)), 1)
    return max(kernel.amount * count / max(seconds, 1e-9) for count, seconds in runs)
