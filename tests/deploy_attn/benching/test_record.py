"""Comparisons in an artifact's folder: which of them answer one question, and what of them stays."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from deploy_attn.benching import record
from deploy_attn.benching.file import read_bench
from deploy_attn.benching.record import Record, RecordFile
from deploy_attn.engines.latency.protocol import Bench, Effort, compare
from deploy_attn.stored import keep_text
from tests.engines.latency.fakes import AT_ONCE, machine, steady


def measured(precision: str = "fp32", threads: int = 1, pairs: int = 1, baseline: str = "old") -> Record:
    sides = [steady(label, 0.001) for label in ("new", "twin", baseline)]
    place = Bench({"threads": threads}, watch=machine(), warm_up=AT_ONCE)
    return Record.now(precision, compare(sides[0], sides[1], sides[2], Effort(pairs=pairs), place))


def kept_in(folder: Path) -> RecordFile:
    return RecordFile(folder, "onnxruntime", "se", "ab" * 32)


def test_other_threads_and_another_precision_are_other_questions(tmp_path: Path) -> None:
    file = kept_in(tmp_path)
    for precision, threads, pairs in (("fp32", 1, 1), ("fp32", 2, 2), ("fp16", 1, 3), ("fp32", 1, 4)):
        file.keep(measured(precision, threads, pairs))
    kept = [(one["precision"], one["conditions"]["threads"], one["ratio"]["pairs"]) for one in file.kept()]
    assert kept == [("fp32", 2, 2), ("fp16", 1, 3), ("fp32", 1, 4)]


def test_two_that_keep_at_once_both_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, other_done = threading.Event(), threading.Event()

    def slowly(file: Path, text: str) -> Path:
        if not read.is_set():
            read.set()
            other_done.wait(0.2)
        return keep_text(file, text)

    monkeypatch.setattr(record, "keep_text", slowly)
    first = threading.Thread(target=kept_in(tmp_path).keep, args=(measured(baseline="naive"),))
    first.start()
    assert read.wait(10)
    kept_in(tmp_path).keep(measured(baseline="eager"))
    other_done.set()
    first.join(10)
    assert [one["baseline"]["label"] for one in kept_in(tmp_path).kept()] == ["naive", "eager"]


def test_of_more_than_a_file_may_hold_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MOST", 2)
    for baseline in ("naive", "eager", "onnxsim"):
        kept_in(tmp_path).keep(measured(baseline=baseline))
    found = read_bench(tmp_path / "bench-onnxruntime.json")
    assert [one.baseline.label for one in found.comparisons] == ["eager", "onnxsim"]
