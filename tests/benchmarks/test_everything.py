"""benchmarks/everything.py: what it runs, what it takes for quiet, and what it tells of a failure."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy_attn.engines.latency.load import Reading

ROOT = Path(__file__).resolve().parents[2]


class Machine:
    """Readings of a machine on which others use so many cores, one after another; scripts run in no time."""

    def __init__(self, others: Iterator[float], codes: dict[str, int]) -> None:
        self.others, self.codes = others, codes
        self.reading = Reading(0.0, 0.0, 0.0, 0.0)
        self.looks = 0
        self.ran: list[list[str]] = []

    def read(self) -> Reading:
        self.looks += 1
        if self.looks % 2 == 0:
            used = 10 * next(self.others)
            self.reading = Reading(self.reading.clock + 10, self.reading.busy + used, 0.0, 0.0)
        return self.reading

    def run(self, command: list[str], **_: Any) -> Any:
        name = Path(command[1]).name
        self.ran.append([name, *command[2:]])
        return type("Done", (), {"returncode": self.codes.get(name, 0)})


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    found = importlib.import_module("everything")
    monkeypatch.setattr(found, "MEASURED", tmp_path)
    monkeypatch.setattr(found.time, "sleep", lambda _: None)
    return found


def _main(found: Any, machine: Machine, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(found, "read_load", machine.read)
    monkeypatch.setattr(found.subprocess, "run", machine.run)
    monkeypatch.setattr(sys, "argv", ["everything.py", *arguments])
    code: int = found.main()
    return code


def _quiet(*others: float) -> Iterator[float]:
    yield from others
    while True:
        yield 0.0


def test_every_step_runs_in_order_and_the_page_is_written_last(
    everything: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(_quiet(), {})
    assert _main(everything, machine, monkeypatch) == 0
    assert machine.ran == [*map(list, everything.STEPS.values()), ["generate.py"]]


def test_every_step_is_a_script_that_writes_the_file_of_its_name(everything: Any) -> None:
    for name, (script, *arguments) in everything.STEPS.items():
        text = (ROOT / "benchmarks" / script).read_text(encoding="utf-8")
        kept = "rtx_static.json" if name == "kernels" else f"{name}.json"
        assert f'"{kept}"' in text
        assert all(f'"{argument}"' in text for argument in arguments)


def test_what_others_used_is_kept(everything: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine(_quiet(0.0, 0.03), {})
    assert _main(everything, machine, monkeypatch, "--only", "floor", "fp16") == 0
    rows = json.loads((tmp_path / "quiet.json").read_text(encoding="utf-8"))["rows"]
    assert rows == [{"name": "floor", "seconds": 10, "others": 0.03, "stolen": 0.0}]


def test_a_failure_is_told_and_keeps_nothing_from_running(
    everything: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(_quiet(0.0, 0.7), {"peers.py": 1})
    assert _main(everything, machine, monkeypatch, "--only", "forms", "peers", "ops") == 1
    assert [script for script, *_ in machine.ran] == ["forms.py", "peers.py", "operators.py", "generate.py"]
    told = capsys.readouterr().err
    assert "forms: other processes used 0.7 cores meanwhile" in told
    assert "peers: exit code 1" in told


def test_a_step_waits_until_nothing_else_runs(everything: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(_quiet(0.9, 0.8), {})
    assert _main(everything, machine, monkeypatch, "--only", "floor") == 0
    assert machine.looks == 2 * 3 + 2  # busy twice, quiet, and around the step


def test_a_machine_that_does_not_become_quiet_is_refused(everything: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(iter([0.9] * 100), {})
    with pytest.raises(SystemExit) as refused:
        _main(everything, machine, monkeypatch, "--only", "floor")
    assert refused.value.code == 2
    assert not machine.ran


def test_what_a_step_itself_uses_is_not_others(
    everything: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    used = iter([1.0, 10.5])
    monkeypatch.setattr(everything, "_children_s", lambda: next(used))
    machine = Machine(_quiet(0.0, 0.98), {})
    assert _main(everything, machine, monkeypatch, "--only", "floor") == 0
    rows = json.loads((tmp_path / "quiet.json").read_text(encoding="utf-8"))["rows"]
    assert [row["others"] for row in rows] == [0.03]
