"""Flushing: the largest data cache by the kernel's account, and twice as much memory written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy_attn.engines.latency import cache
from deploy_attn.engines.latency.cache import Flush, largest_cache_bytes


def caches(folder: Path, *found: tuple[str, str]) -> Path:
    for place, (kind, size) in enumerate(found):
        index = folder / f"index{place}"
        index.mkdir(parents=True)
        (index / "type").write_text(f"{kind}\n", encoding="ascii")
        (index / "size").write_text(f"{size}\n", encoding="ascii")
    return folder


@pytest.mark.parametrize(
    ("found", "nbytes"),
    [
        ([("Data", "48K"), ("Instruction", "64K"), ("Unified", "2048K")], 2 << 20),
        ([("Data", "32K"), ("Unified", "1M"), ("Unified", "32M")], 32 << 20),
        ([("Unified", "1G")], 1 << 30),
        ([("Data", "65536")], 65536),
        ([("Instruction", "64K")], None),
        ([("Unified", "many")], None),
        ([], None),
    ],
)
def test_the_largest_cache_for_data_counts(tmp_path: Path, found: list[tuple[str, str]], nbytes: int | None) -> None:
    assert largest_cache_bytes(caches(tmp_path, *found)) == nbytes


def test_a_file_that_cannot_be_read_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "index0").mkdir()
    assert largest_cache_bytes(tmp_path) is None


@pytest.mark.parametrize(("cache", "nbytes"), [(1 << 20, 8 << 20), (16 << 20, 32 << 20), (1 << 40, 512 << 20)])
def test_twice_the_cache_is_written_within_bounds(cache: int, nbytes: int) -> None:
    assert Flush(cache).nbytes == nbytes


def test_a_flush_writes_all_of_its_memory_each_time() -> None:
    flush = Flush(1 << 20)
    flush()
    flush()
    (memory,) = flush._memory
    assert (memory == 2).all()
    assert memory.nbytes == flush.nbytes


def test_for_several_threads_every_core_writes_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    here = sorted(os.sched_getaffinity(0))
    wrote: list[set[int]] = []
    monkeypatch.setattr(cache, "_write", lambda memory: wrote.append(set(os.sched_getaffinity(0))))
    flush = Flush(1 << 20, threads=2)
    flush()
    assert sorted(map(sorted, wrote)) == [[core] for core in here]
    assert flush.nbytes == sum(memory.nbytes for memory in flush._memory) == len(here) * (8 << 20)
    assert sorted(os.sched_getaffinity(0)) == here, "the calling thread stays free"
