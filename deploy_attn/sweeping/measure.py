"""A cell's measurement, as `bench` makes it and keeps it beside the artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy_attn.jetson.errors import DeployAttnError
from deploy_attn.sweeping.cell_file import Figures, Spread
from deploy_attn.sweeping.plan import Cell, Effort


def measured(cell: Cell, effort: Effort, folder: Path) -> Figures:
    """Times one graph of a verified artifact, alone or against a rival.

    Raises:
        DeployAttnError: it cannot be measured here.
    """
    from deploy_attn.benching.bench import BenchOptions, bench
    from deploy_attn.engines.latency import protocol

    against = () if effort.against is None else (effort.against,)
    options = BenchOptions(
        cell.engine, against, precision=cell.precision, effort=protocol.Effort(seconds=effort.seconds)
    )
    report = bench(folder, options)
    for missed in report.not_compared:
        raise DeployAttnError(f"not compared with {missed.baseline}: {missed.reason}")
    return figures_of(report.records[-1].as_dict(), effort.against)


def figures_of(found: dict[str, Any], against: str | None) -> Figures:
    """Of a comparison as its file has it; without a rival its ratio is the control's, and says nothing here."""
    times, ratio = found["candidate"]["latency"], found["ratio"]
    spread = Spread(ratio["median"], ratio["p10"], ratio["p90"], ratio["pairs"], found["error"])
    return Figures(
        median_ms=times["median_ms"],
        p90_ms=times["p90_ms"],
        n=times["n"],
        baseline=against,
        ratio=None if against is None else spread,
        claim=found["claim"],
        refused=found["refused"],
    )
