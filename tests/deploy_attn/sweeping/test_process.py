"""A cell in a process of its own: how it ends, and in which environment it runs."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from deploy_attn.jetson.progress import is_free
from deploy_attn.sweeping.plan import Cell, Effort, Module
from deploy_attn.sweeping.process import CellProcess, Finished, job_of
from tests.deploy_attn.sweeping.sweeps import FAKE, Fakes


def run(module: str, folder: Path, process: CellProcess = FAKE, limit: float = 60) -> Finished:
    return process.run(job_of(Cell(Module(module), "1x8x4x4", "fp32", "onnxruntime"), Effort(), limit), folder)


def test_a_cell_that_hangs_is_ended_at_its_limit_and_has_failed(tmp_path: Path, fakes: Fakes) -> None:
    began = time.monotonic()
    finished = run("stuck", tmp_path, limit=0.3)
    assert time.monotonic() - began < 30
    assert finished.outcome.reason.startswith("its process did not end within 0.3 s, the limit for a cell")
    assert "--retry-failed and a larger --cell-limit" in finished.outcome.reason
    assert finished.outcome.holds is None
    assert not fakes.lines("orphan")  # killed, and not left to see that nobody waits


def test_what_a_cell_said_last_before_its_limit_is_in_the_reason(tmp_path: Path) -> None:
    talks = CellProcess(("/bin/sh", "-c", "echo so far; exec sleep 60"))
    assert "was killed: so far. If" in run("se", tmp_path, talks, limit=0.3).outcome.reason


@pytest.mark.parametrize(("module", "how"), [("family", "crashed (SIGSEGV)"), ("early", "")])
def test_what_a_cell_started_ends_with_it(tmp_path: Path, fakes: Fakes, module: str, how: str) -> None:
    assert how in run(module, tmp_path).outcome.reason
    descriptor = os.open(fakes.held, os.O_RDWR)
    until = time.monotonic() + 20
    while not is_free(descriptor):  # its child has that file as long as it lives
        assert time.monotonic() < until
        time.sleep(0.01)
    os.close(descriptor)


@pytest.mark.parametrize(("own", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_openmp_sleep_while_they_wait_unless_the_user_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, found: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    says = CellProcess((sys.executable, "-S", "-c", "import os, sys; sys.exit(os.environ['OMP_WAIT_POLICY'])"))
    assert run("se", tmp_path, says).outcome.reason.endswith(f"exit code 1: {found}")
