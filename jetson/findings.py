"""What a run has found so far, and the verdict that it comes to."""

import os
import platform
import time
from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from .artifact import SELF_HASH
from .backend import Backend, Job, Loaded
from .errors import DeployAttnError
from .parity import BRACKETS, Check, Infer, OwnErrors, refused, tolerance_of
from .sensors import Reading
from .verdict import BoardVerdict


class Findings:
    """Fills up while the run goes on.

    Args:
        began: `time.monotonic` at the start.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._first: Optional[float] = None
        self.ready: List[str] = []
        self.checks: List[Check] = []
        self.builds: Dict[str, Any] = {}
        self.timing: Dict[str, Any] = {}
        self.power: Dict[str, Any] = {}
        self.warnings: List[str] = []
        self.problems: List[str] = []
        self._recorded: Optional[BaseException] = None

    def noting_first(self, infer: Infer) -> Infer:
        """The same inference; when the first one ended is kept."""

        def noted(feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            outputs = infer(feeds)
            if self._first is None:
                self._first = time.monotonic() - self._began
            return outputs

        return noted

    def add(self, precision: str, loaded: Loaded, checks: List[Check]) -> None:
        """The checks of a precision, and how its engine came to be."""
        self.builds[precision] = loaded.build
        self.checks += checks
        if loaded.note:
            self.warnings.append(loaded.note)

    def refuse(self, loaded: Loaded, blank: Check, error: BaseException) -> None:
        """What the engine threw is the one check of a precision."""
        self._recorded = error
        self.add(blank.precision, loaded, [refused(blank, error)])

    def has_recorded(self, error: BaseException) -> bool:
        """Whether an error is a check already."""
        return error is self._recorded

    def problem(self, backend: Backend, precision: str, error: DeployAttnError) -> None:
        """A precision that could not be built or run: one failed check, and all that was said of it."""
        job = backend.job
        job.log.say("{}: {}".format(precision, error))
        self.problems.append("{}: {}".format(precision, error))
        if not any(check.precision == precision for check in self.checks):
            graph = job.graph(precision) or job.graph("fp32") or "model.onnx"
            self.checks.append(refused(blank_check(job, graph, precision), error))

    def verdict(self, backend: Backend, before: Reading, after: Reading) -> BoardVerdict:
        job = backend.job
        capsule = job.capsule
        return BoardVerdict(
            name=capsule.name,
            target=capsule.target,
            engine=backend.name,
            checks=tuple(self.checks),
            conditions=dict(backend.conditions(), artifact_sha256=capsule.artifact.manifest[SELF_HASH], **_machine()),
            board=job.board.as_dict(),
            builds=self.builds,
            timing=self.timing,
            power=self.power,
            temperatures={"before": before.temperatures, "after": after.temperatures},
            throttling={
                "before": before.throttle_counters,
                "after": after.throttle_counters,
                "cooling_before": before.cooling_states,
                "cooling_after": after.cooling_states,
            },
            warnings=tuple(self.warnings),
            problems=tuple(self.problems),
            capsule={"sha256": capsule.sha256, "deploy_attn": capsule.version, "left_out": capsule.left_out},
            seconds={"to_first_result": self._first, "total": time.monotonic() - self._began},
        )


def blank_check(job: Job, graph: str, precision: str) -> Check:
    """A check of a precision, before it has a case and an output."""
    tolerance = tolerance_of(job.capsule.artifact.manifest, precision)
    return Check(graph, precision, BRACKETS[precision], "", "", None, tolerance)


def own_errors(job: Job) -> OwnErrors:
    """How far the module itself is off in FP32, by case and output."""
    found: OwnErrors = job.capsule.artifact.manifest.get("fp32_errors") or {}
    return found


def _machine() -> Dict[str, Any]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
    }
