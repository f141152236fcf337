"""A cell's figures are those of its bench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy_attn.benching import bench as benching
from deploy_attn.engines.latency.result import Blocks, Candidate, Comparison
from deploy_attn.engines.pairs import Paired
from deploy_attn.jetson.errors import DeployAttnError
from deploy_attn.sweeping.measure import figures_of, measured
from deploy_attn.sweeping.plan import Cell, Effort, Module

CELL = Cell(Module("se"), "1x8x4x4", "fp16", "onnxruntime")


def comparison() -> Comparison:
    pairs = Paired((0.002,) * 9 + (0.004,), (0.001,) * 10)
    sides = Candidate("se", lambda: None), Candidate("naive", lambda: None)
    return Comparison(*sides, pairs, Paired((0.001,) * 10, (0.001,) * 10), Blocks(1, 0), None, "too few", {})


def test_figures_are_the_artifacts_times_and_the_paired_ratio() -> None:
    figures = figures_of(comparison().as_dict(), "naive")
    assert (figures.median_ms, figures.p90_ms, figures.n) == pytest.approx((1.0, 1.0, 10))
    assert figures.ratio is not None
    assert (figures.ratio.median, figures.ratio.pairs, figures.ratio.error) == (2.0, 10, 0.0)
    assert (figures.baseline, figures.claim, figures.refused) == ("naive", None, "too few")


def test_without_a_rival_there_is_no_ratio() -> None:
    figures = figures_of(comparison().as_dict(), None)
    assert (figures.baseline, figures.ratio) == (None, None)


@pytest.mark.parametrize(("against", "names"), [("naive", ("naive",)), (None, ())])
def test_a_cell_asks_for_its_own_graph_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, against: str | None, names: tuple[str, ...]
) -> None:
    asked: list[Any] = []

    def bench(folder: Path, options: benching.BenchOptions) -> benching.BenchReport:
        asked.append((folder, options))
        missed = (benching.NotCompared("fp16", "naive", "its output differs"),)
        return benching.BenchReport(folder, "se", "onnxruntime", folder / "x", (), missed, ())

    monkeypatch.setattr(benching, "bench", bench)
    with pytest.raises(DeployAttnError, match="not compared with naive: its output differs"):
        measured(CELL, Effort(against, 2.0), tmp_path)
    options = asked[0][1]
    assert (options.engine, options.precision, tuple(options.against)) == ("onnxruntime", "fp16", names)
    assert options.effort.seconds == 2.0
