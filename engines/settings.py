"""How onnxruntime is to run a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from deploy_attn.jetson.errors import BadRequest

CPU = "CPUExecutionProvider"
# How far a session optimises its graph, by the name of onnxruntime's level.
LEVELS: Mapping[str, str] = MappingProxyType(
    {"all": "ORT_ENABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "basic": "ORT_ENABLE_BASIC", "off": "ORT_DISABLE_ALL"}
)


@dataclass(frozen=True)
class Settings:
    """Where a session runs, with how many threads, and what it may do to the graph.

    Attributes:
        provider: CPU, CUDA or TENSORRT of `engines.onnxruntime`.
        intra_op_threads: within one operator; 0 lets onnxruntime choose (a physical core each).
        inter_op_threads: for operators side by side; 0 lets onnxruntime choose.
        level: one of LEVELS.
        denormals_zero: subnormal numbers are read and written as zero, on every thread that computes.
        spinning: idle threads of the session wait for work by running, which takes the cores from whatever else runs.

    Raises:
        BadRequest: there is no such level.
    """

    provider: str = CPU
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    level: str = "all"
    denormals_zero: bool = False
    spinning: bool = True

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise BadRequest(f"onnxruntime has no optimisation level {self.level!r}. It has {', '.join(LEVELS)}.")

    def as_dict(self) -> dict[str, Any]:
        """What can be tuned of them, as an artifact's folder keeps it. JSON values only."""
        return {
            "level": self.level,
            "intra_op_threads": self.intra_op_threads,
            "denormals_zero": self.denormals_zero,
            "spinning": self.spinning,
        }

    def __str__(self) -> str:
        threads = "threads as onnxruntime chooses" if not self.intra_op_threads else f"{self.intra_op_threads} thread"
        plural = "s" if self.intra_op_threads > 1 else ""
        spinning = ", spinning" if self.spinning and self.intra_op_threads != 1 else ""
        return f"level {self.level}, {threads}{plural}{spinning}{', subnormals as zero' if self.denormals_zero else ''}"
