"""The verdict: when it is PASS, what its file holds, and what a person reads."""

import json
import math
import os
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

from deploy_attn.jetson import findings
from deploy_attn.jetson.metrics import compare
from deploy_attn.jetson.parity import Check, Tolerance
from deploy_attn.jetson.summary import power_line, summary
from deploy_attn.jetson.verdict import BoardVerdict, check_table, remove_verdict, write_verdict

TOLERANCE = Tolerance(1e-3, 1e-2, "by hand")
ONES = np.ones((2, 2), np.float32)
GOOD = Check("model.onnx", "fp32", "exact", "normal", "y", compare(ONES, ONES), TOLERANCE)
BAD = GOOD._replace(case="other", comparison=compare(ONES * 2, ONES))
POWER: Dict[str, Any] = {
    "refused": None,
    "joules_per_inference": 0.0125,
    "joules_per_inference_above_idle": 0.005,
    "mean_watts": 5.0,
    "samples": 100,
    "hz": 10.0,
    "source": "rail VDD_IN",
}


def verdict_of(**changed: Any) -> BoardVerdict:
    parts: Dict[str, Any] = {name: {} for name in BoardVerdict._fields}
    parts.update(name="gate", target="board", engine="tensorrt", checks=(GOOD,), warnings=(), problems=())
    parts["conditions"] = {"engine": "tensorrt", "version": "8.2.1"}
    return BoardVerdict(**dict(parts, **changed))


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        ({}, True),
        ({"warnings": ("hot",)}, True),
        ({"checks": (GOOD, BAD)}, False),
        ({"checks": ()}, False),
        ({"problems": ("fp16: not built",)}, False),
    ],
)
def test_a_verdict_passes_with_checks_that_hold_and_no_problem(changed: Dict[str, Any], passed: bool) -> None:
    found = verdict_of(**changed)
    assert found.passed is passed
    assert found.as_dict()["passed"] is passed
    assert summary(found).splitlines()[-1].startswith("PASS  1 of 1" if passed else "FAIL")


def test_the_file_holds_what_is_not_finite_as_null_and_is_written_whole(tmp_path: Path) -> None:
    remove_verdict(str(tmp_path))
    found = verdict_of(board={"clock": math.inf, "rates": (1, float("nan"))}, seconds={"total": np.float32(1.5)})
    path = write_verdict(str(tmp_path), found)
    assert os.listdir(str(tmp_path)) == ["verdict.json"] == [os.path.basename(path)]
    document = json.loads(Path(path).read_text())
    assert document["board"] == {"clock": None, "rates": [1, None]}
    assert document["seconds"] == {"total": 1.5}
    remove_verdict(str(tmp_path))
    assert os.listdir(str(tmp_path)) == []


def test_a_verdict_that_cannot_be_written_leaves_the_one_before_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_verdict(str(tmp_path), verdict_of())

    def full(descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_verdict(str(tmp_path), verdict_of(checks=(BAD,)))
    assert os.listdir(str(tmp_path)) == ["verdict.json"]
    assert json.loads((tmp_path / "verdict.json").read_text())["passed"]


def test_the_table_has_each_number_under_its_heading() -> None:
    headings, rule, good, bad = check_table([GOOD, BAD])
    words = headings.replace("RMS relative", "RMS").replace("max abs", "max").split()
    assert dict(zip(words, bad.split())) == {
        "graph": "model.onnx",
        "bracket": "exact",
        "case": "other",
        "output": "y",
        "RMS": "1.0e+00",
        "allowed": "1e-03",
        "max": "1.0e+00",
        "cosine": "1.0000000",
    }
    assert (good.split()[-1], bad.split()[-1]) == ("ok", "FAIL")
    assert len(rule) >= len(headings)


def test_power_is_told_in_millijoules_with_its_samples_or_why_there_is_none() -> None:
    assert power_line("fp16", POWER) == (
        "power in fp16: 12.5 mJ per inference, 5 mJ of it above idle, 5.00 W mean (100 samples at 10.0 Hz, rail VDD_IN)"
    )
    assert "above idle" not in power_line("fp16", dict(POWER, joules_per_inference_above_idle=None))
    assert power_line("fp16", {"refused": "No rail."}) == "power in fp16: No rail."
    assert power_line("fp16", {}) == "power in fp16: not measured"


def test_a_person_reads_warnings_problems_and_temperatures() -> None:
    temperatures = {"before": {"gpu": 40.2, "cpu": 41.0}, "after": {"gpu": 52.7}}
    said = summary(verdict_of(warnings=("hot",), problems=("cold",), temperatures=temperatures)).splitlines()
    assert {"warning: hot", "problem: cold"} <= set(said)
    assert "temperatures in deg C, before and after: gpu 40 to 53" in said


def test_the_first_result_is_that_of_the_first_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([12.0, 17.0])
    found = findings.Findings(10.0)
    infer = found.noting_first(lambda feeds: feeds)
    monkeypatch.setattr("deploy_attn.jetson.findings.time.monotonic", lambda: next(moments))
    assert infer({"x": ONES}) == infer({"x": ONES}) == {"x": ONES}
    assert found._first == 2.0
