"""The roofline's floor under an artifact on a target, beside what was measured there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deploy_attn.benching.estimate_runs import Measured, Run, runs_of_boards, runs_of_this_machine
from deploy_attn.engines.latency.machine import cpu_name
from deploy_attn.engines.latency.runners import timed_settings
from deploy_attn.engines.machine_limits import PROFILE, Limits, measured_limits
from deploy_attn.engines.roofline import NOWHERE, Estimate, estimate
from deploy_attn.engines.target import load_target
from deploy_attn.jetson.artifact import Artifact, open_artifact
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.parity import check_manifest


@dataclass(frozen=True)
class Estimates:
    """The floor under each graph of an artifact, and what was measured on that target.

    `limits` are those of this machine, one for each number of threads, where it is the target. `set_apart` says of each
    run in the folder that has times and is not of the target, or of this artifact, why.
    """

    artifact: str
    folder: str
    estimates: tuple[Estimate, ...]
    measured: tuple[Measured, ...]
    set_apart: tuple[str, ...]
    limits: tuple[Limits, ...] = ()

    @property
    def passed(self) -> bool:
        """An estimate is no test."""
        return True

    def as_dict(self) -> dict[str, Any]:
        return {
            "artifact": self.artifact,
            "estimates": [one.as_dict() for one in self.estimates],
            "measured": [{**asdict(one), "file": str(one.file)} for one in self.measured],
            "set_apart": list(self.set_apart),
            "limits": [one.as_dict() for one in self.limits],
        }


def estimate_artifact(
    folder: str | Path, target: str, precision: str | None = None, threads: int | None = None, cold: bool = False
) -> Estimates:
    """The floor under an artifact's graphs on a target, and the times that its folder holds from there.

    `onnxruntime-cpu` is this machine, whose bandwidth and peaks are measured now.

    Args:
        target: the name of a profile, or the path of one's own.
        precision: only of this graph.
        threads: of this machine; None for what was tuned, else 1.
        cold: of this machine, with the data in memory instead of its caches.

    Raises:
        BadRequest: no artifact, no such target or precision, a target that does not say what is needed, threads or
            cold caches of another target than this machine, or a file named as a verdict or a bench that is none.
        DamagedArtifact: a file differs from the manifest.
        DeployAttnError: the shapes of a graph cannot be told without running it.
    """
    profile = load_target(target)
    artifact = open_artifact(str(folder))
    check_manifest(artifact)
    wanted = [str(graph["precision"]) for graph in artifact.manifest["graphs"]] if precision is None else [precision]
    if target == PROFILE:
        return _on_this_machine(artifact, wanted, threads, cold)
    if threads is not None or cold:
        raise BadRequest(f"--threads and --cold are of --target {PROFILE}, which is this machine. Leave them out.")
    estimates = [estimate(folder, profile, one) for one in wanted]
    return _estimates(artifact, estimates, runs_of_boards(artifact, profile))


def _on_this_machine(artifact: Artifact, wanted: Sequence[str], threads: int | None, cold: bool) -> Estimates:
    counted = [estimate(artifact.path, NOWHERE, one) for one in wanted]
    settings = {one: timed_settings(artifact, one, threads).intra_op_threads for one in wanted}
    size = max(one.work.traffic.least for one in counted)
    limits = {count: measured_limits(size, count) for count in dict.fromkeys(settings.values())}
    estimates = []
    for one in counted:
        target = limits[settings[one.precision]].target(cold)
        estimates.append(one.on(replace(target, title=f"{cpu_name()}, {target.title}")))
    runs = [
        run
        for count in limits
        for run in runs_of_this_machine(artifact, count, cold)
        if settings.get(run.measured.precision) == count
    ]
    return replace(_estimates(artifact, estimates, runs), limits=tuple(limits.values()))


def _estimates(artifact: Artifact, estimates: Sequence[Estimate], runs: Iterable[Run]) -> Estimates:
    found = list(runs)
    wanted = [one.precision for one in estimates]
    return Estimates(
        artifact=str(artifact.manifest.get("name", "unnamed")),
        folder=artifact.path,
        estimates=tuple(estimates),
        measured=tuple(run.measured for run in found if not run.foreign and run.measured.precision in wanted),
        set_apart=tuple(dict.fromkeys(f"{run.measured.file}: {run.foreign}" for run in found if run.foreign)),
    )
