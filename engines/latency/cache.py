"""Empties the processor's caches, so that a call is timed with its data in memory."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

_CPU0 = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_UNKNOWN_BYTES = 64 << 20
_LEAST, _MOST = 8 << 20, 512 << 20


def largest_cache_bytes(folder: Path = _CPU0) -> int | None:
    """Of the largest cache for data that the first core sees; None where the kernel does not say."""
    sizes = []
    for index in folder.glob("index*"):
        kind, size = (_read(index / name) for name in ("type", "size"))
        found = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind in ("Data", "Unified") and found:
            sizes.append(int(found[1]) * _UNITS[found[2]])
    return max(sizes, default=None)


class Flush:
    """Writes through twice as much memory as the largest cache holds, on the calling core or on each.

    Args:
        cache_bytes: of the largest cache; None for what the kernel says.
        threads: of what is timed. Each core has caches of its own, so with more than one every core of this process
            writes, where threads can be bound to cores.

    Attributes:
        nbytes: how much in all; 64 MiB where no size is known.
    """

    def __init__(self, cache_bytes: int | None = None, threads: int = 1) -> None:
        known = cache_bytes or largest_cache_bytes()
        whole = _UNKNOWN_BYTES if known is None else min(max(2 * known, _LEAST), _MOST)
        cores = sorted(os.sched_getaffinity(0)) if threads > 1 and hasattr(os, "sched_getaffinity") else []
        self._bound = [ThreadPoolExecutor(1, "flush", os.sched_setaffinity, (0, {core})) for core in cores]
        each = max(whole // max(len(cores), 1), _LEAST)
        self._memory = [np.zeros(each // 8, dtype=np.int64) for _ in cores or (0,)]
        self.nbytes = each * len(self._memory)

    def __call__(self) -> None:
        for begun in [one.submit(_write, memory) for one, memory in zip(self._bound, self._memory)]:
            begun.result()
        if not self._bound:
            _write(self._memory[0])


def _write(memory: np.ndarray[Any, Any]) -> None:
    memory += 1


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
