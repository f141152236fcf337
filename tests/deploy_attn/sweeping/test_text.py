"""A sweep for a person, and its command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy_attn.sweeping.cell_file import Figures, Kept, Outcome, Spread
from deploy_attn.sweeping.plan import Cell, Effort, Module, Plan
from deploy_attn.sweeping.sweep import SweepReport
from deploy_attn.sweeping.text import show_sweep
from tests.conftest import Finished

SPREAD = Spread(1.5, 1.4, 1.6, 300, 0.02)


def kept(cell: Cell, reason: str = "", figures: Figures | None = None, where: str = "here") -> Kept:
    outcome = Outcome(reason, True if figures else None, figures, where, {}, "2026-01-01T00:00:00+00:00", 1.0)
    return Kept("key", cell, Effort("naive"), None, outcome)


def shown(report: SweepReport, capsys: pytest.CaptureFixture[str]) -> str:
    show_sweep(report)
    return capsys.readouterr().out


def test_each_cell_has_a_row_and_each_reason_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(tuple(map(Module, ("se", "eca", "gct", "sk"))), precisions=("fp32",), effort=Effort("naive"))
    se, eca, gct, sk = plan.cells
    report = SweepReport(
        folder=Path("out"),
        plan=plan,
        cells=(
            kept(se, figures=Figures(0.0123456, 1, 300, "naive", SPREAD, "faster", None)),
            kept(eca, figures=Figures(2, 3, 9, "naive", SPREAD, None, "too few [pairs]"), where="there"),
            kept(gct, reason="it crashed \x1b[31m[red]\nin many lines"),
        ),
        not_run=(sk,),
        ran=1,
        notes=("a note",),
    )
    rows = [line.split() for line in shown(report, capsys).splitlines()]
    assert ["module", "where", "median", "ms", "ratio"] in rows
    assert ["se", "here", "0.01235", "1.500x", "+-0.030", "done"] in rows
    assert ["eca", "there", "2", "1.500x", "+-0.030", "done,", "no", "claim"] in rows
    assert ["gct", "here", "failed"] in rows
    assert ["sk", "not", "run"] in rows
    text = shown(report, capsys)
    assert "All in fp32 and onnxruntime" in text
    assert "failed  gct 1x64x56x56 fp32 onnxruntime: it crashed \\x1b[31m[red]\n" in text
    assert "no claim  eca 1x64x56x56 fp32 onnxruntime: too few [pairs]\n" in text
    assert text.endswith("FAIL  2 of 4 cells done; 1 run, 2 were there\n")


def test_cells_that_failed_alike_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan((Module("se"),), shapes=tuple(f"1x8x4x{width}" for width in range(1, 6)), precisions=("fp32",))
    report = SweepReport(Path("out"), plan, tuple(kept(cell, "no memory") for cell in plan.cells), (), 5, ())
    assert shown(report, capsys).count("no memory") == 1
    assert "fp32 onnxruntime and 2 more: no memory" in shown(report, capsys)


def test_the_command_measures_a_module_and_goes_on_where_it_was(tmp_path: Path, cli: Callable[..., Finished]) -> None:
    words = ("sweep", "-o", tmp_path / "s", "--modules", "se", "--shapes", "1x16x4x4", "--precisions", "fp32")
    done = cli(*words, "--seconds", "0.05", "--json")
    assert done.exit_code == 0, done.stdout
    found = json.loads(done.stdout)["cells"][0]
    assert (found["status"], found["holds"]) == ("done", True)
    assert found["figures"]["median_ms"] > 0
    artifact = tmp_path / "s" / "artifacts" / found["artifact"]
    assert (artifact / "bench-onnxruntime.json").is_file()
    again = cli(*words, "--seconds", "0.05")
    assert "1 of 1 cells done; 0 run, 1 were there" in again.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--modules", ","), "The plan is empty"),
        (("--modules", "se", "--against", "nave"), "Unknown rival 'nave'. Known: naive"),
        (("--modules", "se", "--seconds", "0"), "0 seconds were asked for"),
        (("--modules", "se", "--cell-limit", "nan"), "A limit of nan seconds a cell was asked for"),
        (("--modules", "se", "--seconds", "9", "--cell-limit", "9"), "--seconds less, or --cell-limit more"),
        (("--modules", "se", "--scheduler", "nonsense"), "was not reached"),
        ((), "--modules"),
    ],
)
def test_what_cannot_be_swept_is_refused(
    tmp_path: Path, cli: Callable[..., Finished], words: tuple[str, ...], said: str
) -> None:
    done = cli("sweep", "-o", tmp_path / "s", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "s").exists()
