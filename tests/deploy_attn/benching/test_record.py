"""Comparisons in an artifact's folder: which of them answer one question."""

from __future__ import annotations

from pathlib import Path

from deploy_attn.benching.record import Record, RecordFile
from deploy_attn.engines.latency.protocol import Bench, Effort, compare
from tests.engines.latency.fakes import AT_ONCE, machine, steady


def test_other_threads_and_another_precision_are_other_questions(tmp_path: Path) -> None:
    file = RecordFile(tmp_path, "onnxruntime", "se", "ab" * 32)
    sides = [steady(label, 0.001) for label in ("new", "twin", "old")]
    for precision, threads, pairs in (("fp32", 1, 1), ("fp32", 2, 2), ("fp16", 1, 3), ("fp32", 1, 4)):
        place = Bench({"threads": threads}, watch=machine(), warm_up=AT_ONCE)
        file.keep(Record.now(precision, compare(sides[0], sides[1], sides[2], Effort(pairs=pairs), place)))
    kept = [(one["precision"], one["conditions"]["threads"], one["ratio"]["pairs"]) for one in file.kept()]
    assert kept == [("fp32", 2, 2), ("fp16", 1, 3), ("fp32", 1, 4)]
