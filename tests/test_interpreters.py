"""The script that runs tests/jetson on each board's Python: a missing one, and a run that proves nothing, fail."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "interpreters"
ROW = "py36-numpy113"

# Stands in for a Python 3.6: it tells its version, copies itself for a virtual environment, and has a report of tests.
FAKE = """#!/bin/sh
case "$*" in
*platform*) echo "${FAKE_ABOUT:-CPython 3.6.15}" ;;
*"-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*"-m pip"*) [ -z "$FAKE_NO_INDEX" ] || { echo "no index" >&2; exit 1; } ;;
*"-m pytest"*)
    [ -z "$FAKE_SIGNAL" ] || kill -"$FAKE_SIGNAL" $$
    for word in "$@"; do case "$word" in --junitxml=*) echo "$FAKE_REPORT" >"${word#*=}" ;; esac; done
    exit "${FAKE_CODE:-0}" ;;
esac
"""


def report(tests: int = 5, failures: int = 0, errors: int = 0, skipped: int = 0) -> str:
    counts = f'tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}"'
    return f"<testsuites><testsuite {counts}/></testsuites>"


def fake_python(folder: Path, name: str = "python3.6") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(FAKE)
    (folder / name).chmod(0o755)
    return folder / name


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, on a machine that has nothing but /bin; it builds in a folder of the test."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("interpreters", str(SCRIPT))
    spec = importlib.util.spec_from_loader("interpreters", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "interpreters", module)
    loader.exec_module(module)
    monkeypatch.setattr(module, "BUILD", tmp_path / "build")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/bin")
    for variable in ("CI", "DEPLOY_ATTN_INTERPRETERS"):
        monkeypatch.delenv(variable, raising=False)
    return module


@pytest.fixture
def with_3_6(boards: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    fake_python(tmp_path / "path")
    monkeypatch.setenv("FAKE_REPORT", report())
    return boards


def test_a_row_is_a_line_with_what_ran(with_3_6: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert with_3_6.main([ROW]) == 0
    _, line, total = capsys.readouterr().out.splitlines()
    assert line.split()[:7] == [ROW, "3.6.15", "none", "none", "5", "5", "0"]
    assert total == "5 passed, 0 failed"


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"FAKE_REPORT": report(failures=1), "FAKE_CODE": "1"}, "1 failed"),
        ({"FAKE_REPORT": report(errors=2), "FAKE_CODE": "1"}, "2 failed"),
        ({"FAKE_REPORT": report(skipped=1)}, "1 skipped"),
        ({"FAKE_REPORT": report(tests=0), "FAKE_CODE": "5"}, "no tests"),
        ({"FAKE_REPORT": report(tests=0)}, "no tests"),
        ({"FAKE_CODE": "3"}, "exit code 3"),
        ({"FAKE_SIGNAL": "SEGV"}, "ended without a report (signal SIGSEGV)"),
        ({"FAKE_NO_INDEX": "1"}, "no index"),
    ],
    ids=["a failure", "errors", "a skip", "none", "none and no error", "exit code", "crash", "no package index"],
)
def test_a_row_that_does_not_pass_whole_fails(
    with_3_6: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    problem: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert with_3_6.main([ROW]) == 1
    printed = capsys.readouterr().out
    assert "FAILED: " in printed
    assert problem in printed


def test_a_report_of_an_earlier_run_is_not_taken_for_this_one(
    with_3_6: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert with_3_6.main([ROW]) == 0
    monkeypatch.setenv("FAKE_SIGNAL", "KILL")
    assert with_3_6.main([ROW]) == 1
    assert "SIGKILL" in capsys.readouterr().out


def test_an_environment_is_kept_until_its_pins_change(
    with_3_6: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert with_3_6.main([ROW]) == 0
    monkeypatch.setenv("FAKE_NO_INDEX", "1")
    assert with_3_6.main([ROW]) == 0
    monkeypatch.setattr(with_3_6, "REQUIREMENTS", tmp_path)
    (tmp_path / f"{ROW}.txt").write_text("numpy==1.13.1\n")
    assert with_3_6.main([ROW]) == 1


@pytest.mark.parametrize("mode", [None, "required", "available"])
@pytest.mark.parametrize("ci", [None, "true"])
def test_without_3_6_it_fails_and_says_how_to_get_it(
    boards: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str | None, ci: str | None
) -> None:
    for variable, value in (("DEPLOY_ATTN_INTERPRETERS", mode), ("CI", ci)):
        if value:
            monkeypatch.setenv(variable, value)
    assert boards.main([ROW]) == 1
    assert "Python 3.6 is missing" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(("mode", "ci", "code"), [("available", "", 0), ("available", "true", 1), ("required", "", 1)])
def test_what_is_missing_is_left_out_only_where_that_was_asked_for_and_not_in_ci(
    with_3_6: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    ci: str,
    code: int,
) -> None:
    monkeypatch.setenv("DEPLOY_ATTN_INTERPRETERS", mode)
    monkeypatch.setenv("CI", ci)
    assert with_3_6.main([ROW, "py38"]) == code
    printed = capsys.readouterr().out
    assert "Python 3.8 is missing" in printed
    assert ("5 passed, 0 failed" in printed) == (code == 0)


def test_a_mode_that_is_none_is_refused(boards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_ATTN_INTERPRETERS", "maybe")
    with pytest.raises(SystemExit, match="maybe"):
        boards.main([ROW])


@pytest.mark.parametrize("about", ["CPython 3.7.1", "PyPy 3.6.9", "", "CPython"])
def test_a_program_of_that_name_that_is_another_python_is_passed_over(
    with_3_6: Any, monkeypatch: pytest.MonkeyPatch, about: str
) -> None:
    monkeypatch.setenv("FAKE_ABOUT", about or " ")
    assert with_3_6.locate("3.6") is None


def test_the_newest_of_pyenv_comes_first(with_3_6: Any, tmp_path: Path) -> None:
    for version in ("3.6.9", "3.6.15", "3.60.1"):
        fake_python(tmp_path / "pyenv" / "versions" / version / "bin", "python")
    assert with_3_6.locate("3.6").path == str(tmp_path / "pyenv" / "versions" / "3.6.15" / "bin" / "python")


def test_every_row_pins_numpy_and_pytest_exactly(boards: Any) -> None:
    for row in boards.ROWS:
        lines = (boards.REQUIREMENTS / f"{row.name}.txt").read_text(encoding="utf-8").splitlines()
        names = {line.partition("==")[0] for line in lines if "==" in line and not line.startswith("#")}
        assert {"numpy", "pytest", "hypothesis"} <= names
        assert ("onnxruntime" in names) == (row.name != ROW)
        assert all("==" in line for line in lines if line and not line.startswith("#"))


def test_an_unknown_row_is_a_usage_error() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "py35"], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2
    assert "py36-numpy113" in done.stderr
