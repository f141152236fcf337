"""The roofline's floor under an artifact on a target, beside what was measured there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy_attn.engines.roofline import Estimate, estimate
from deploy_attn.engines.target import Target, load_target
from deploy_attn.jetson.artifact import SELF_HASH, Artifact, open_artifact
from deploy_attn.verdict_file import Times, VerdictFile, read_verdict

_VERDICTS = "verdict*.json"
_CAPABILITY = "device.compute_capability"


@dataclass(frozen=True)
class Measured:
    """Times of one precision in one verdict of the artifact; `kind` is `compute` or `end to end`."""

    file: Path
    where: str
    engine: str
    precision: str
    kind: str
    times: Times


@dataclass(frozen=True)
class Estimates:
    """The floor under each graph of an artifact, and what boards of that target measured.

    `set_apart` says of each verdict in the folder that has times and is not of such a board, or of this artifact, why.
    """

    artifact: str
    folder: str
    estimates: tuple[Estimate, ...]
    measured: tuple[Measured, ...]
    set_apart: tuple[str, ...]

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
        }


def estimate_artifact(folder: str | Path, target: str, precision: str | None = None) -> Estimates:
    """The floor under an artifact's graphs on a target, and the times that its folder holds from such boards.

    Args:
        target: the name of a profile, or the path of one's own.
        precision: only of this graph.

    Raises:
        BadRequest: no artifact, no such target or precision, a target that does not say what is needed, or a file
            named as a verdict that is none.
        DamagedArtifact: a file differs from the manifest.
        DeployAttnError: the shapes of a graph cannot be told without running it.
    """
    profile = load_target(target)
    artifact = open_artifact(str(folder))
    listed = [str(graph["precision"]) for graph in artifact.manifest["graphs"]]
    wanted = listed if precision is None else [precision]
    verdicts = [read_verdict(file) for file in sorted(Path(folder).glob(_VERDICTS))]
    timed = [verdict for verdict in verdicts if any(_times(verdict, one) for one in verdict.timing)]
    reasons = {verdict.file: _foreign(verdict, artifact, profile) for verdict in timed}
    return Estimates(
        artifact=str(artifact.manifest.get("name", "unnamed")),
        folder=str(folder),
        estimates=tuple(estimate(folder, profile, one) for one in wanted),
        measured=tuple(
            one
            for verdict in timed
            if not reasons[verdict.file]
            for one in _measured(verdict)
            if one.precision in wanted
        ),
        set_apart=tuple(f"{file}: {reason}" for file, reason in reasons.items() if reason),
    )


def _foreign(verdict: VerdictFile, artifact: Artifact, target: Target) -> str:
    """Why the times of a verdict are not those of this artifact on such a board; empty where they are."""
    if verdict.artifact_sha256 != artifact.manifest[SELF_HASH]:
        return "it is of another artifact, or of this one before it was exported again"
    if verdict.document.get("target") != target.name:
        return f"it is of a run for {verdict.document.get('target') or 'no target'}, and not for {target.name}"
    board = verdict.document.get("board")
    found = board.get("compute_capability") if isinstance(board, dict) else None
    wanted = target.value(_CAPABILITY)
    if wanted is not None and found != wanted:
        return f"{verdict.where} has compute capability {found or 'unknown'}, and {target.name} has {wanted}"
    return ""


def _measured(verdict: VerdictFile) -> Iterator[Measured]:
    engine = f"{verdict.engine} {verdict.version}".rstrip()
    for precision in verdict.timing:
        for kind, times in _times(verdict, precision).items():
            yield Measured(verdict.file, verdict.where, engine, precision, kind, times)


def _times(verdict: VerdictFile, precision: str) -> dict[str, Times]:
    timing = verdict.timing[precision]
    kinds = {"compute": timing.compute, "end to end": timing.end_to_end}
    return {kind: times for kind, times in kinds.items() if times is not None}
