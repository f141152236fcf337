"""What a person reads of a bench: claims, their absence, and what may have spoiled a figure."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy_attn.benching.bench import BenchReport, NotCompared
from deploy_attn.benching.record import Record
from deploy_attn.benching.text import COLUMNS, effort_from_options, lines, rows
from deploy_attn.build_text import progress_on_stderr
from deploy_attn.engines.latency.protocol import Effort
from deploy_attn.engines.latency.result import Blocks, Candidate, Comparison
from deploy_attn.engines.pairs import Paired
from deploy_attn.jetson.errors import BadRequest

CONDITIONS = {
    "threads": 2,
    "cache": "cold",
    "flushed_bytes": 64 << 20,
    "machine": {"cpu": "a processor"},
    "background_cores": 0.25,
    "warm_up": {"candidate": {"settled": True}, "baseline": {"settled": True}},
}
SESSION = {"engine": "onnxruntime", "version": "1.0", "optimisation": "all", "denormals": "kept", "intra_op_threads": 2}


def report(*missed: NotCompared, label: str = "naive", **changed: Any) -> BenchReport:
    fields = {
        "candidate": Candidate("out/se fp32", lambda: None, SESSION),
        "baseline": Candidate(label, lambda: None),
        "pairs": Paired((0.003,) * 30, (0.002,) * 30),
        "control": Paired((0.002,) * 30, (0.002,) * 30),
        "blocks": Blocks(2, 0),
        "claim": "out/se fp32 is 1.50 times as fast as naive, give or take 0.0 %.",
        "refused": "",
        "conditions": CONDITIONS,
        **changed,
    }
    record = Record.now("fp32", Comparison(**fields))
    return BenchReport(Path("out/se"), "se", "onnxruntime", Path("out/se/bench.json"), (record,), missed, ("A note.",))


def test_both_sides_have_times_and_the_control_stands_below() -> None:
    own, other, control = rows(report().records[0])
    assert len(own) == len(COLUMNS)
    assert own[:4] == ("out/se fp32", "2.000", "2.000", "2.000")
    assert other == ("  naive", "3.000", "3.000", "3.000", "1.500", "1.50..1.50", "30")
    assert control == ("  itself again", "", "", "", "1.000", "1.00..1.00", "30")


def test_an_artifact_by_itself_has_its_control_alone() -> None:
    assert [row[0] for row in rows(report(label="itself").records[0])] == ["out/se fp32", "  itself again"]


def test_a_claim_is_printed_with_its_conditions() -> None:
    found = list(lines(report()))
    assert found[0] == "out/se fp32 is 1.50 times as fast as naive, give or take 0.0 %."
    assert found[1] == "A note."
    assert found[2] == (
        "conditions of fp32: onnxruntime 1.0, 2 thread(s), no spinning, level all, subnormals kept, caches cold, 64 "
        "MiB written before each timed call, a processor, others used 0.25 cores meanwhile"
    )


def test_each_precision_has_conditions_of_its_own_and_the_busiest_background() -> None:
    told = report()
    (fp32,) = told.records
    tuned = replace(
        fp32.comparison, candidate=replace(fp32.comparison.candidate, conditions={**SESSION, "optimisation": "basic"})
    )
    calm = replace(fp32.comparison, conditions={**CONDITIONS, "background_cores": 0.01})
    records = (fp32, Record.now("fp32", calm), Record.now("fp16", tuned))
    found = [line for line in lines(replace(told, records=records)) if line.startswith("conditions of ")]
    assert len(found) == 2
    assert "fp32" in found[0] and "level all" in found[0] and "0.25 cores" in found[0]
    assert "fp16" in found[1] and "level basic" in found[1]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (SESSION, False),
        ({**SESSION, "intra_op_threads": 1}, True),
        ({**SESSION, "optimisation": "basic"}, True),
        ({**SESSION, "denormals": "zero"}, True),
        ({"engine": "torch"}, False),
    ],
)
def test_a_session_with_other_settings_is_told_with_them(other: dict[str, Any], said: bool) -> None:
    found = "\n".join(lines(report(baseline=Candidate("naive", lambda: None, other))))
    assert ("fp32 against naive: that ran with " in found) == said
    assert not said or f"{other['intra_op_threads']} thread(s), no spinning, level {other['optimisation']}" in found


@pytest.mark.parametrize(
    ("precision", "label", "said"),
    [("fp16", "naive", True), ("fp32", "naive", False), ("fp16", "out/cbam fp16", False), ("fp16", "itself", False)],
)
def test_that_rivals_compute_in_fp32_is_said_where_the_artifact_does_not(
    precision: str, label: str, said: bool
) -> None:
    told = report(label=label)
    told = replace(told, records=(Record.now(precision, told.records[0].comparison),))
    assert any(line.startswith("rivals compute in FP32") for line in lines(told)) == said


def test_where_nothing_is_claimed_the_reason_and_the_error_bar_stand_instead() -> None:
    found = list(lines(report(claim=None, refused="Too few pairs.")))
    assert found[0] == "fp32 against naive: no claim, error bar 0.0 %. Too few pairs."
    assert not any("times as fast" in line for line in found)


def test_what_may_have_spoiled_a_figure_is_said() -> None:
    restless = {**CONDITIONS, "warm_up": {"candidate": {"settled": False}, "baseline": {"settled": True}}}
    told = report(
        NotCompared("fp32", "compile", "No compiler."),
        blocks=Blocks(2, 3, ("other processes used 1.5 cores",)),
        conditions={**restless, "background_cores": None},
    )
    found = "\n".join(lines(told))
    assert "3 blocks of pairs were repeated: other processes used 1.5 cores meanwhile" in found
    assert "the times of candidate had not settled" in found
    assert "fp32 against compile: not compared. No compiler." in found
    assert "background load not told here" in found


def test_blocks_that_count_though_something_ran_are_said() -> None:
    found = "\n".join(lines(report(blocks=Blocks(2, 4, ("others used 1.5 cores",), spoiled=1))))
    assert "4 blocks of pairs were repeated, and 1 of the 2 that count are no better: others used 1.5 cores" in found


def test_a_still_progress_bar_is_drawn_by_the_one_who_tells_it_and_by_no_thread(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    before = threading.active_count()
    with progress_on_stderr(still=True) as shown:
        assert shown is not None
        for step, steps in ((0, None), (0, 3), (1, 3), (3, 3)):
            shown({"phase": "out/[x] against naive", "step": step, "steps": steps})
        assert threading.active_count() == before
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "out/[x] against naive" in captured.err
    assert "left:" in captured.err


def test_an_effort_is_named_by_pairs_or_by_seconds() -> None:
    assert effort_from_options(None, None, False) == Effort()
    assert effort_from_options(7, None, True) == Effort(pairs=7, cold=True)
    assert effort_from_options(None, 0.5, False) == Effort(seconds=0.5, least=1)
    with pytest.raises(BadRequest, match="Give one"):
        effort_from_options(30, 1.0, False)
