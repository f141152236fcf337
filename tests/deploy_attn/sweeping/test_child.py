"""What the process of a cell does: real exports, measurements put in their place."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.sweeping import child
from deploy_attn.sweeping.cell_file import Figures
from deploy_attn.sweeping.child import run_cell
from deploy_attn.sweeping.plan import Cell, Effort, Module
from deploy_attn.sweeping.process import CellProcess, job_of

FIGURES = Figures(1.0, 2.0, 30)


def cell(module: str = "se", shape: str = "1x16x4x4", precision: str = "fp32", **options: str) -> Cell:
    return Cell(Module(module, tuple(options.items())), shape, precision, "onnxruntime")


def measure(asked: Cell, effort: Effort, folder: Path) -> Figures:
    assert (folder / "verdict-onnxruntime.json").is_file()
    assert (folder / "model.fp16.onnx").is_file() == (asked.precision == "fp16")
    return FIGURES


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_cell_is_exported_and_verified_before_it_is_measured(tmp_path: Path, precision: str) -> None:
    outcome = run_cell(cell(precision=precision, reduction="4"), Effort(), tmp_path / "a", measure)
    assert (outcome.reason, outcome.holds, outcome.figures) == ("", True, FIGURES)
    options = json.loads((tmp_path / "a" / "manifest.json").read_text())["source"]["options"]
    assert options["reduction"] == 4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (cell("cbma"), "Known: cbam"),
        (cell(shape="16x4x4"), "--shape '16x4x4' is not a shape of se"),
        (cell(reduction="0"), "Option reduction of se takes"),
        (cell("sk", groups="3"), "channels divisible by groups"),
    ],
)
def test_what_the_catalogue_refuses_is_the_reason(tmp_path: Path, asked: Cell, said: str) -> None:
    outcome = run_cell(asked, Effort(), tmp_path / "a", measure)
    assert said in outcome.reason
    assert (outcome.holds, outcome.figures) == (None, None)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BadRequest("The rival is not installed."), "The rival is not installed."),
        (MemoryError("std::bad_alloc"), "not enough memory (std::bad_alloc)"),
        (ZeroDivisionError("division by zero"), "unexpected ZeroDivisionError: division by zero. That is a bug"),
    ],
)
def test_a_measurement_that_fails_is_the_reason_and_the_verdict_stays(
    tmp_path: Path, error: Exception, said: str
) -> None:
    def fails(asked: Cell, effort: Effort, folder: Path) -> Figures:
        raise error

    outcome = run_cell(cell(), Effort(), tmp_path / "a", fails)
    assert outcome.reason.startswith(said)
    assert outcome.holds is True


def test_an_artifact_that_fails_parity_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_verified", lambda *_: SimpleNamespace(passed=False, checks=()))
    outcome = run_cell(cell(), Effort(), tmp_path / "a", measure)
    assert (outcome.reason, outcome.holds, outcome.figures) == ("no parity check ran", False, None)


def test_a_measurement_has_the_machine_alone_and_an_export_shares_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[object] = []

    @contextlib.contextmanager
    def device(alone: bool) -> Iterator[None]:
        held.append(alone)
        yield
        held.append("free")

    def measure(asked: Cell, effort: Effort, folder: Path) -> Figures:
        held.append("measured")
        return FIGURES

    monkeypatch.setattr(child, "device", device)
    assert run_cell(cell(), Effort(), tmp_path / "a", measure).done
    assert held == [False, "free", True, "measured", "free"]


def test_a_cell_watches_whoever_started_it_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watches() -> None:
        raise SystemExit("watches")

    monkeypatch.setattr(child, "end_with_the_caller", watches)
    with pytest.raises(SystemExit, match="watches"):
        child.main(str(tmp_path / "absent"))


def test_another_version_is_refused_with_both_named(tmp_path: Path) -> None:
    finished = CellProcess().run({**job_of(cell(), Effort()), "code": "0.0.9+abc"}, tmp_path)
    assert "started with deploy-attn 0.0.9+abc, and" in finished.outcome.reason
    assert finished.files == {}
