"""What a worker does of a sweep: one cell, in a process of its own, answered in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy_attn.sweeping.process import CellProcess


def answer(job: Mapping[str, Any], program: tuple[str, ...] | None) -> dict[str, Any]:
    """Runs a cell in the folder of this worker: `outcome` as JSON has it, `files` as bytes by name."""
    from distributed import get_worker

    finished = CellProcess(program).run(job, Path(get_worker().local_directory))
    return {"outcome": finished.outcome.as_dict(), "files": dict(finished.files)}
