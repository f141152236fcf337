"""A sweep on this machine: what is run, what is kept, and what of it outlives a kill."""

from __future__ import annotations

import errno
import inspect
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.sweeping.cell_file import read_cell
from deploy_attn.sweeping.made_with import made_with
from deploy_attn.sweeping.plan import Effort, Plan
from deploy_attn.sweeping.sweep import SweepOptions, SweepReport, sweep
from tests.deploy_attn.sweeping.sweeps import FAKE, FAKE_CELL, LOG, Fakes, plan

OPTIONS = SweepOptions(process=FAKE)

REASONS = {
    "crash": "crashed (SIGSEGV)",
    "memory": "was killed (SIGKILL), as the system does when memory runs out",
    "exits": "exit code 1: said at the end",
    "silent": "without an answer that can be read",
    "refused": "the module refuses it",
}


def statuses(report: SweepReport) -> dict[str, bool]:
    return {kept.cell.module.name: kept.outcome.done for kept in report.cells}


def test_a_cell_that_fails_is_kept_with_its_reason_and_the_others_go_on(tmp_path: Path, fakes: Fakes) -> None:
    report = sweep(plan(f"{','.join(REASONS)},se"), tmp_path / "s", OPTIONS)
    assert statuses(report) == {**dict.fromkeys(REASONS, False), "se": True}
    assert not report.passed
    for kept in report.cells:
        assert REASONS.get(kept.cell.module.name, "") in kept.outcome.reason
        assert read_cell(tmp_path / "s" / "cells" / f"{kept.key}.json") == kept


def test_what_a_cell_exported_is_kept_under_its_name(tmp_path: Path, fakes: Fakes) -> None:
    report = sweep(plan("se,crash"), tmp_path / "s", OPTIONS)
    for kept in report.cells:
        assert kept.artifact is not None
        manifest = tmp_path / "s" / "artifacts" / kept.artifact / "manifest.json"
        assert json.loads(manifest.read_text()) == {"of": kept.cell.module.name}
    assert list((tmp_path / "s" / ".work").iterdir()) == []


def test_finished_cells_are_not_run_again(tmp_path: Path, fakes: Fakes) -> None:
    first = sweep(plan("se,refused"), tmp_path / "s", OPTIONS)
    again = sweep(plan("se,refused"), tmp_path / "s", OPTIONS)
    assert (first.ran, again.ran, again.cells, again.notes) == (2, 0, first.cells, ())
    assert len(fakes.lines("begin")) == 2


def test_failed_cells_are_run_again_when_that_is_asked(tmp_path: Path, fakes: Fakes) -> None:
    sweep(plan("se,refused"), tmp_path / "s", OPTIONS)
    again = sweep(plan("se,refused"), tmp_path / "s", replace(OPTIONS, retry_failed=True))
    assert (again.ran, statuses(again)) == (1, {"se": True, "refused": False})
    assert [line.split()[1] for line in fakes.lines("begin")] == ["se", "refused", "refused"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (plan("se,eca"), "1 cells are new, and 0"),
        (plan("eca"), "1 cells are new, and 1"),
        (plan("se", effort=Effort("eager")), "1 cells are new, and 1"),
    ],
)
def test_a_plan_that_changed_is_told_and_only_its_new_cells_are_run(
    tmp_path: Path, fakes: Fakes, other: Plan, said: str
) -> None:
    sweep(plan("se"), tmp_path / "s", OPTIONS)
    report = sweep(other, tmp_path / "s", OPTIONS)
    assert report.ran == 1
    assert [said in note for note in report.notes] == [True]
    assert len(list((tmp_path / "s" / "cells").iterdir())) == 2


def test_a_cell_of_other_versions_is_not_taken_for_one_of_these(
    tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = made_with()
    sweep(plan("se"), tmp_path / "s", OPTIONS)
    monkeypatch.setattr("deploy_attn.sweeping.sweep.made_with", lambda: {**versions, "onnxruntime": "0.0"})
    report = sweep(plan("se"), tmp_path / "s", OPTIONS)
    assert report.ran == 1
    assert any("-> 0.0)" in note for note in report.notes)


@pytest.mark.parametrize(
    "damage", [lambda text: text[:30], lambda text: text.replace('"done"', '"failed"'), lambda text: "[]"]
)
def test_a_cell_whose_file_is_damaged_is_run_again(tmp_path: Path, fakes: Fakes, damage: Callable[[str], str]) -> None:
    report = sweep(plan("se"), tmp_path / "s", OPTIONS)
    file = tmp_path / "s" / "cells" / f"{report.cells[0].key}.json"
    file.write_text(damage(file.read_text()))
    again = sweep(plan("se"), tmp_path / "s", OPTIONS)
    assert (again.ran, again.passed) == (1, True)
    assert str(file) in again.notes[0]


def test_a_file_of_another_cell_is_not_taken_for_it(tmp_path: Path, fakes: Fakes) -> None:
    report = sweep(plan("se"), tmp_path / "s", OPTIONS)
    file = tmp_path / "s" / "cells" / f"{report.cells[0].key}.json"
    file.write_text(file.read_text().replace('"module": "se"', '"module": "eca"'))
    again = sweep(plan("se"), tmp_path / "s", OPTIONS)
    assert (again.ran, [kept.cell.module.name for kept in again.cells]) == (1, ["se"])
    assert "is of eca" in again.notes[0]


def test_a_cell_whose_artifact_cannot_be_kept_is_not_taken_for_finished(tmp_path: Path, fakes: Fakes) -> None:
    sweep(plan("eca"), tmp_path / "s", OPTIONS)
    shutil.rmtree(tmp_path / "s" / "artifacts")
    (tmp_path / "s" / "artifacts").symlink_to(tmp_path / "absent")
    with pytest.raises(BadRequest, match="cannot be written"):
        sweep(plan("se"), tmp_path / "s", OPTIONS)
    assert len(list((tmp_path / "s" / "cells").iterdir())) == 1


def test_a_sweep_that_was_killed_as_it_began_goes_on(tmp_path: Path, fakes: Fakes) -> None:
    (tmp_path / "s").mkdir()
    for left in ("sweep.lock", ".deploy-attn-abc.partial"):
        (tmp_path / "s" / left).touch()
    assert sweep(plan("se"), tmp_path / "s", OPTIONS).passed


def test_a_folder_is_a_sweeps_before_anything_else_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deploy_attn.sweeping.folder.keep_text", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(plan("se"), tmp_path / "s", OPTIONS)
    assert os.listdir(tmp_path / "s") == ["sweep.lock"]


def test_progress_tells_how_many_cells_there_are_to_run(tmp_path: Path, fakes: Fakes) -> None:
    told: list[tuple[int, str]] = []
    sweep(plan("se"), tmp_path / "s", OPTIONS)
    sweep(plan("se,eca,gct"), tmp_path / "s", OPTIONS, lambda total, cell: told.append((total, str(cell)[:3])))
    assert told == [(2, "Non"), (2, "eca"), (2, "gct")]


def test_a_program_that_does_not_start_ends_the_sweep_and_fails_no_cell(tmp_path: Path, fakes: Fakes) -> None:
    sweep(plan("se"), tmp_path / "s", OPTIONS)
    process = replace(FAKE, program=(str(tmp_path / "absent"),))
    with pytest.raises(BadRequest, match=r"^eca .* cannot be run in .*: No such file or directory \(.*absent\)"):
        sweep(plan("se,eca"), tmp_path / "s", replace(OPTIONS, process=process))
    assert len(list((tmp_path / "s" / "cells").iterdir())) == 1


def test_each_cell_has_the_limit_that_was_asked(tmp_path: Path, fakes: Fakes) -> None:
    report = sweep(plan("stuck"), tmp_path / "s", replace(OPTIONS, cell_limit=0.3))
    assert "did not end within 0.3 s" in report.cells[0].outcome.reason
    fakes.go.touch()
    assert sweep(plan("stuck"), tmp_path / "s", OPTIONS).ran == 0  # a limit is no part of what is asked
    again = sweep(plan("stuck"), tmp_path / "s", replace(OPTIONS, retry_failed=True))
    assert (again.ran, again.passed) == (1, True)


def test_a_limit_within_which_no_cell_ends_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="measured for 5 s and ended after 5 s"):
        sweep(plan("se", effort=Effort(seconds=5)), tmp_path / "s", replace(OPTIONS, cell_limit=5))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_a_limit_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(BadRequest, match="Give --cell-limit a number above 0, or leave it out for 1800"):
        SweepOptions(cell_limit=limit)


def full_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_loses_one_cell_and_the_sweep_goes_on_when_there_is_room(
    tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, written = os.fsync, [0]

    def fills(descriptor: int) -> None:
        written[0] += 1
        if written[0] > 2:  # the plan, and the first cell
            full_disk()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fills)
    with pytest.raises(BadRequest, match=r"cannot be written: No space left on device\. Make room"):
        sweep(plan("se,eca,gct"), tmp_path / "s", OPTIONS)
    assert [line.split()[1] for line in fakes.lines("begin")] == ["se", "eca"]
    monkeypatch.undo()
    monkeypatch.setenv(LOG, str(fakes.log))
    report = sweep(plan("se,eca,gct"), tmp_path / "s", OPTIONS)
    assert (report.ran, report.passed, report.notes) == (2, True, ())
    assert [name for name in os.listdir(tmp_path / "s" / "cells") if not name.endswith(".json")] == []


@pytest.mark.parametrize(("owner", "call"), [(tempfile, "mkdtemp"), (os, "pwrite")])
def test_a_disk_that_is_full_before_a_cell_is_said_and_fails_no_cell(
    tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch, owner: object, call: str
) -> None:
    monkeypatch.setattr(owner, call, full_disk)
    with pytest.raises(BadRequest, match="No space left on device"):
        sweep(plan("se"), tmp_path / "s", OPTIONS)
    assert not list((tmp_path / "s").glob("cells/*"))


def test_a_folder_that_vanishes_ends_the_sweep(tmp_path: Path, fakes: Fakes) -> None:
    with pytest.raises(BadRequest, match="cannot be written: No such file or directory"):
        sweep(plan("vanishes,se"), tmp_path / "s", OPTIONS)
    assert not fakes.lines("begin se")


def test_the_command_has_the_limit_of_the_library() -> None:
    from deploy_attn.commands import sweep_cells

    assert inspect.signature(sweep_cells).parameters["cell_limit"].default == SweepOptions().cell_limit


class Running:
    """A sweep in a process of its own, which is in a cell that is stuck."""

    def __init__(self, root: Path, modules: str, fakes: Fakes) -> None:
        code = (
            "import sys\nfrom pathlib import Path\n"
            "from deploy_attn.sweeping.sweep import sweep\n"
            "from tests.deploy_attn.sweeping.test_sweep import OPTIONS, plan\n"
            f"sweep(plan({modules!r}), Path({str(root)!r}), OPTIONS)\n"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code], cwd=FAKE_CELL.parents[3])
        until(lambda: fakes.lines("begin stuck"))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def until(what: Callable[[], Any], seconds: float = 20) -> None:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)


def test_a_killed_sweep_loses_the_cell_that_was_running_and_no_other(tmp_path: Path, fakes: Fakes) -> None:
    running = Running(tmp_path / "s", "se,eca,stuck,gct", fakes)
    running.kill()
    until(lambda: fakes.lines("orphan"))  # its cell's process ends with it
    fakes.go.touch()
    report = sweep(plan("se,eca,stuck,gct"), tmp_path / "s", OPTIONS)
    assert (report.ran, report.passed, report.notes) == (2, True, ())
    assert list((tmp_path / "s" / ".work").iterdir()) == []


def test_a_second_sweep_into_one_folder_is_refused_while_the_first_lives(tmp_path: Path, fakes: Fakes) -> None:
    running = Running(tmp_path / "s", "stuck", fakes)
    try:
        with pytest.raises(BadRequest, match=rf"Another sweep \(process {running.process.pid}\)"):
            sweep(plan("se"), tmp_path / "s", OPTIONS)
    finally:
        running.kill()
    assert sweep(plan("se"), tmp_path / "s", OPTIONS).passed


def test_a_folder_that_is_no_sweeps_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").touch()
    with pytest.raises(BadRequest, match=r"holds what no sweep wrote \(thesis.tex\)"):
        sweep(plan("se"), tmp_path / "s", OPTIONS)
    assert os.listdir(tmp_path / "s") == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", "{}", '{"kind": "deploy-attn sweep", "schema_version": 99}'])
def test_a_folder_of_another_kind_of_sweep_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(BadRequest, match=r"sweep\.json"):
        sweep(plan("se"), tmp_path, OPTIONS)
    assert os.listdir(tmp_path) == ["sweep.json"]


def test_a_file_is_no_folder_for_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    with pytest.raises(BadRequest, match="not a folder"):
        sweep(plan("se"), tmp_path / "s", OPTIONS)
