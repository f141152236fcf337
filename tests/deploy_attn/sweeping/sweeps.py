"""Sweeps of fake cells."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from deploy_attn.sweeping.plan import Effort, Plan, plan_from_texts
from deploy_attn.sweeping.process import CellProcess

FAKE_CELL = Path(__file__).with_name("fake_cell.py")
FAKE = CellProcess((sys.executable, "-S", str(FAKE_CELL)))
LOG, GO, HELD = "DEPLOY_ATTN_FAKE_LOG", "DEPLOY_ATTN_FAKE_GO", "DEPLOY_ATTN_FAKE_HELD"


def plan(modules: str, precisions: str = "fp32", effort: Effort | None = None) -> Plan:
    axes = {"modules": [modules], "precisions": [precisions], "shapes": ["1x8x4x4"]}
    return plan_from_texts(axes, "onnxruntime-cpu", effort or Effort("naive"))


@dataclass(frozen=True)
class Fakes:
    """What fake cells do: their log, the file for which one that is stuck waits, and one that a child of theirs has."""

    log: Path
    go: Path
    held: Path

    def lines(self, what: str = "") -> list[str]:
        """Lines that begin so, each with the process that started that cell at its end."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(what)]
