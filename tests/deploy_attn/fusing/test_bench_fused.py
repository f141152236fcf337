"""The fused operator as an engine that is timed, as a rival of the artifact's own graph, and in a sweep."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy_attn.benching import bench as benching
from deploy_attn.engines.fused.graph_file import ENGINE, FUSED_GRAPH
from deploy_attn.engines.latency.protocol import Bench
from deploy_attn.engines.loading import load
from deploy_attn.engines.parity import verify
from deploy_attn.exporting import export_artifact
from deploy_attn.fusing.fuse import fuse
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.request import ExportRequest
from deploy_attn.sweeping.cell_file import Figures
from deploy_attn.sweeping.child import run_cell
from deploy_attn.sweeping.plan import Cell, Effort, Module
from tests.conftest import Finished
from tests.engines.latency.fakes import AT_ONCE, machine

SHAPE = (1, 16, 8, 8)
QUICK = ("--pairs", "2")
FIGURES = Figures(1.0, 2.0, 30)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without other programs, and no wait for the times to settle."""
    monkeypatch.setattr(benching, "Bench", functools.partial(Bench, watch=machine(), warm_up=AT_ONCE))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two artifacts with fused graphs and their verdicts, one of them of both precisions."""
    folder = tmp_path_factory.mktemp("timed")
    for name in ("gct", "srm"):
        export_artifact(ExportRequest(name, shape=SHAPE, fp16=name == "gct", output=folder / name))
        fuse(folder / name)
        verify(folder / name, ENGINE)
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def comparisons(done: Finished) -> list[dict[str, str]]:
    assert done.exit_code == 0, done.stderr
    return [
        {
            "precision": one["precision"],
            "own": one["candidate"]["conditions"]["engine"],
            "baseline": one["baseline"]["label"],
            "its": one["baseline"]["conditions"]["engine"],
            "threads": one["conditions"]["threads"],
        }
        for one in json.loads(done.stdout)["comparisons"]
    ]


def test_the_engine_is_timed_in_fp32_on_one_thread_beside_rivals_and_cold(
    out: Path, cli: Callable[..., Finished]
) -> None:
    (out / "gct" / "settings-onnxruntime.json").write_text("not settings of this engine")
    done = cli("bench", out / "gct", "--engine", ENGINE, "--against", "naive", "--cold", *QUICK, "--json")
    own = {"precision": "fp32", "own": ENGINE, "baseline": "naive", "its": "onnxruntime", "threads": 1}
    assert comparisons(done) == [own]
    assert (out / "gct" / f"bench-{ENGINE}.json").is_file()


def test_two_fused_artifacts_are_compared(out: Path, cli: Callable[..., Finished]) -> None:
    (one,) = comparisons(cli("bench", out / "gct", out / "srm", "--engine", ENGINE, *QUICK, "--json"))
    assert (one["own"], one["its"], one["baseline"]) == (ENGINE, ENGINE, f"{out / 'srm'} fp32")


def test_one_command_compares_the_artifacts_graph_with_its_fused_operator(
    out: Path, cli: Callable[..., Finished]
) -> None:
    found = comparisons(cli("bench", out / "gct", "--against", "fused", *QUICK, "--json"))
    assert [(one["precision"], one["own"], one["its"]) for one in found] == [
        ("fp32", "onnxruntime", ENGINE),
        ("fp16", "onnxruntime", ENGINE),
    ]


def test_a_rival_that_was_not_fused_is_told_with_the_command(out: Path, cli: Callable[..., Finished]) -> None:
    (out / "srm" / FUSED_GRAPH).unlink()
    done = cli("bench", out / "srm", "--against", "fused", *QUICK)
    assert (done.exit_code, f"`deploy-attn fuse {out / 'srm'}`" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--threads", "2"), "runs on 1. Leave --threads out"),
        (("--precision", "fp16"), f"{ENGINE} runs fp32 only, and fp16 was asked for"),
    ],
)
def test_what_the_engine_does_not_do_is_refused(
    out: Path, cli: Callable[..., Finished], options: tuple[str, ...], words: str
) -> None:
    done = cli("bench", out / "gct", "--engine", ENGINE, *options, *QUICK)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


def test_without_a_fused_graph_nothing_is_timed_and_the_command_is_told(
    out: Path, cli: Callable[..., Finished]
) -> None:
    (out / "gct" / FUSED_GRAPH).unlink()
    done = cli("bench", out / "gct", "--engine", ENGINE, *QUICK)
    assert (done.exit_code, f"`deploy-attn fuse {out / 'gct'}`" in done.stderr) == (2, True)


def test_a_precision_that_it_does_not_run_is_not_loaded(out: Path) -> None:
    with pytest.raises(BadRequest, match=f"{ENGINE} runs fp32 only, and fp16 was asked for"):
        load(out / "gct", engine=ENGINE, precision="fp16")


@pytest.mark.parametrize(
    ("engine", "against"), [(ENGINE, None), ("onnxruntime", "fused")], ids=["as an engine", "as a rival"]
)
def test_a_cell_of_a_sweep_fuses_before_it_measures(tmp_path: Path, engine: str, against: str | None) -> None:
    def measure(cell: Cell, effort: Effort, folder: Path) -> Figures:
        assert (folder / FUSED_GRAPH).is_file()
        assert (folder / f"verdict-{engine}.json").is_file()
        return FIGURES

    cell = Cell(Module("gct"), "1x16x4x4", "fp32", engine)
    outcome = run_cell(cell, Effort(against=against), tmp_path / "gct", measure)
    assert (outcome.reason, outcome.holds, outcome.figures) == ("", True, FIGURES)


def test_a_cell_of_a_module_without_an_operator_says_so(tmp_path: Path) -> None:
    outcome = run_cell(Cell(Module("se"), "1x16x4x4", "fp32", ENGINE), Effort(), tmp_path / "se")
    assert "is of se, which has no fused operator" in outcome.reason
    assert outcome.figures is None
