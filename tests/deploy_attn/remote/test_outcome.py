"""What a board's run amounts to: its verdict and its exit code, which must agree."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.remote.conversation import Ended
from deploy_attn.remote.outcome import keep_text, outcome_of
from tests.deploy_attn.remote.capsules import CHECK

PASSING: dict[str, Any] = {"engine": "onnxruntime", "passed": True, "checks": [CHECK], "conditions": {}}


def ended(verdict: str | None, returncode: int = 0, *words: str, size: int = 0) -> Ended:
    return Ended(True, returncode, 1.0, verdict, size, None, 0, None, words)


def verdict(**changes: Any) -> str:
    return json.dumps({**PASSING, **changes})


def measured(**changes: Any) -> str:
    return verdict(checks=[{**CHECK, "measured": {**CHECK["measured"], **changes}}])


def test_a_verdict_that_holds_passes() -> None:
    found = outcome_of(ended(verdict()))
    assert (found.exit_code, found.problem, found.engine) == (0, None, "onnxruntime")


def test_a_runner_that_refused_has_no_verdict() -> None:
    assert outcome_of(ended(verdict(), 2)).verdict is None


def test_a_verdict_that_does_not_hold_says_it_itself() -> None:
    found = outcome_of(ended(verdict(passed=False, problems=["no"]), 1))
    assert (found.exit_code, found.problem, found.engine) == (1, None, "onnxruntime")


@pytest.mark.parametrize(
    ("run", "exit_code", "why"),
    [
        (
            ended(verdict(), 1),
            1,
            "the verdict says passed, but the runner ended with exit code 1: one of them is wrong",
        ),
        (ended(verdict(passed=False)), 1, "the verdict says failed, but the runner ended with exit code 0"),
        (ended(verdict(), 77), 1, "the runner ended with exit code 77. It said: nothing"),
        (ended(verdict(), -9), 1, "killed by SIGKILL before it ended. That is what a system does when memory runs out"),
        (ended(None, -11, "last"), 1, "killed by SIGSEGV before it ended. It said: last"),
        (ended(None, -250), 1, "killed by signal 250"),
        (ended(None, 2, "a", "run.py: b", "c"), 2, "the runner could not serve it: run.py: b / c"),
        (ended(verdict(), 2), 2, "the runner could not serve it: nothing"),
        (
            ended(None, 0, *"abcdef"),
            1,
            "there is no verdict.json; the runner ended with exit code 0. It said: c / d / e / f",
        ),
        (ended(None, size=5 << 20), 1, "verdict.json is 5,242,880 bytes, which no verdict has"),
        (ended(""), 1, "what the board wrote is no verdict: verdict.json"),
        (ended('{"engine"'), 1, "what the board wrote is no verdict: verdict.json"),
        (ended("[" * 100_000), 1, "what the board wrote is no verdict: verdict.json"),
        (ended("9" * 5000), 1, "what the board wrote is no verdict: verdict.json"),
        (ended("\ud800"), 1, "what the board wrote is no verdict: verdict.json"),
        (ended(verdict(checks=[])), 1, "which its own checks or problems contradict"),
        (ended(measured(rms_relative=1.0)), 1, "numbers contradict"),
        (ended(measured(cosine=float("nan"))), 1, "what the board wrote is no verdict"),
        (
            ended(verdict(engine="../../x")),
            1,
            "names an engine that no board has; they have tensorrt, trtexec, onnxruntime",
        ),
    ],
)
def test_what_does_not_pass_says_why(run: Ended, exit_code: int, why: str) -> None:
    found = outcome_of(run)
    assert found.exit_code == exit_code
    assert why in str(found.problem)
    assert tempfile.gettempdir() not in str(found.problem)


@settings(max_examples=40)
@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_no_text_of_a_board_is_a_verdict_by_chance(text: str) -> None:
    found = outcome_of(ended(text))
    assert (found.exit_code, found.verdict) == (1, None)
    assert found.problem


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").mkdir()
    with pytest.raises(BadRequest, match=r"verdict.json cannot be written"):
        keep_text(tmp_path, "verdict.json", "text")
    assert [file.name for file in tmp_path.iterdir()] == ["verdict.json"]
