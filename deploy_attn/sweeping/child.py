"""What the process of a cell does: export, verify, measure."""

from __future__ import annotations

import json
import os
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_attn.engines.build import BUILDERS
from deploy_attn.engines.fused.graph_file import ENGINE as FUSED
from deploy_attn.engines.json_fields import read_fields
from deploy_attn.jetson.errors import DeployAttnError, first_line
from deploy_attn.jetson.tensorrt_build import end_with_the_caller
from deploy_attn.jetson.verdict import failure
from deploy_attn.sweeping.cell_file import Figures, Outcome, cell_from, effort_from
from deploy_attn.sweeping.device import device
from deploy_attn.sweeping.made_with import code_version
from deploy_attn.sweeping.measure import measured
from deploy_attn.sweeping.plan import Cell, Effort
from deploy_attn.sweeping.process import ANSWER, JOB, failed

if TYPE_CHECKING:
    from deploy_attn.engines.verdict import Verdict

# Measures one graph of a verified artifact.
Measure = Callable[[Cell, Effort, Path], Figures]


def main(folder: str) -> None:
    """Runs the cell that JOB of a folder names, and writes its outcome there as ANSWER."""
    end_with_the_caller()
    os.chdir(folder)  # so that the artifact's path in its own files is its name
    job = read_fields(Path(JOB), "")
    asked, here = job.text("code"), code_version()
    if asked == here:
        outcome = run_cell(cell_from(job.part("cell")), effort_from(job.part("effort")), Path(job.text("name")))
    else:
        outcome = failed(
            f"the sweep was started with deploy-attn {asked}, and {platform.node()} has {here}. Install the same on "
            "both, and sweep again with --retry-failed.",
            0,
        )
    answer = json.dumps(outcome.as_dict(), allow_nan=False)
    Path(ANSWER).write_text(answer, encoding="utf-8")


def run_cell(cell: Cell, effort: Effort, folder: Path, measure: Measure = measured) -> Outcome:
    """Exports a cell to a folder, verifies it there in the cell's engine, and measures it if it holds.

    Whatever goes wrong is the outcome's reason.
    """
    reason, holds, figures, began = "", None, None, time.monotonic()
    try:
        with device(alone=False):  # to import torch is work as well
            verdict = _verified(cell, effort, folder)
        holds = verdict.passed
        if holds:
            with device(alone=True):
                figures = measure(cell, effort, folder)
        else:
            reason = "; ".join(failure(check) for check in verdict.checks if not check.passed) or "no parity check ran"
    except DeployAttnError as error:
        reason = str(error)
    except MemoryError as error:
        reason = f"not enough memory ({first_line(error)})"
    except Exception as error:  # a bug over one cell is no reason to leave the others
        reason = f"unexpected {type(error).__name__}: {first_line(error)}. That is a bug of deploy-attn.\n"
        reason += traceback.format_exc()
    return replace(failed(reason, time.monotonic() - began), holds=holds, figures=figures)


def _verified(cell: Cell, effort: Effort, folder: Path) -> Verdict:
    from deploy_attn.engines.parity import verify
    from deploy_attn.exporting import export_artifact
    from deploy_attn.fusing.fuse import fuse
    from deploy_attn.request import ExportRequest

    request = ExportRequest(
        cell.module.name,
        shape=cell.shape,
        fp16=cell.precision == "fp16",
        target=cell.target,
        options=dict(cell.module.options),
        output=folder,
    )
    export_artifact(request)
    if cell.engine in BUILDERS:
        _build(cell, folder)
    if cell.engine == FUSED or effort.against == "fused":
        fuse(folder)
    return verify(folder, cell.engine)


def _build(cell: Cell, folder: Path) -> None:
    from deploy_attn.building import build_engine
    from deploy_attn.engines.builder import BuildOptions

    build_engine(folder, cell.engine, cell.target, BuildOptions(precision=cell.precision))
