"""An artifact that is to be timed: whether it is known to compute what it should, and on which inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy_attn.engines.base import engine_class
from deploy_attn.engines.latency.runners import engine_settings, timed_runner
from deploy_attn.engines.profile import shape_text
from deploy_attn.jetson.artifact import SELF_HASH, Artifact, Case, open_artifact
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact, DeployAttnError, first_line
from deploy_attn.jetson.parity import Check, Infer, check_manifest, checks_of, tolerance_of
from deploy_attn.jetson.verdict import failure
from deploy_attn.verdict_file import read_verdict


@dataclass(frozen=True)
class Subject:
    """An artifact, the parity case that it is timed on, its precisions, and why its figures are to be doubted."""

    folder: Path
    artifact: Artifact
    case: Case
    precisions: tuple[str, ...]
    doubt: str

    @property
    def name(self) -> str:
        return str(self.artifact.manifest["name"])

    @property
    def sha256(self) -> str:
        return str(self.artifact.manifest[SELF_HASH])

    @property
    def shapes(self) -> str:
        return ", ".join(shape_text(array.shape) for array in self.case.inputs.values())


def subject_from_folder(folder: Path, engine: str, precision: str | None, force: bool) -> Subject:
    """An artifact with a verdict that holds, or with `force` any.

    Args:
        precision: None for all that it has and the engine runs.

    Raises:
        BadRequest: no artifact, no such precision, one that the engine does not run, or no verdict of this export
            that holds in that engine.
        DamagedArtifact: a file differs from the manifest.
    """
    artifact = open_artifact(str(folder))
    check_manifest(artifact)
    there = tuple(graph["precision"] for graph in artifact.manifest["graphs"])
    if not there:
        raise DamagedArtifact(f"The manifest of {folder} lists no graph. Export the artifact again.")
    runs = engine_class(engine).prefers
    if precision not in (None, *runs):
        raise BadRequest(f"{engine} runs {' and '.join(runs)} only, and {precision} was asked for.")
    if precision is not None and precision not in there:
        remedy = "Export it with --fp16." if precision == "fp16" else "Name one of these."
        raise BadRequest(f"{folder} has no graph in {precision}; it has {' and '.join(there)}. {remedy}")
    wanted = tuple(one for one in there if precision in (None, one) and one in runs)
    doubt = _doubt(folder, artifact, engine)
    if doubt and not force:
        _check_starts(artifact, engine, wanted[0])
        raise BadRequest(
            f"{folder} was not timed: {doubt}. Run `deploy-attn verify {folder} --engine {engine}`, which checks it; "
            "--force times it as it is."
        )
    return Subject(folder, artifact, artifact.cases()[0], wanted, doubt)


def check_comparable(one: Subject, other: Subject) -> None:
    """Raises BadRequest where times of two artifacts do not answer one question."""
    if one.shapes != other.shapes:
        raise BadRequest(
            f"{one.folder} takes {one.shapes} and {other.folder} takes {other.shapes}; times on different inputs are "
            "not compared. Export one of them with the other's --shape."
        )
    lacking = [precision for precision in one.precisions if precision not in other.precisions]
    if lacking:
        raise BadRequest(
            f"{other.folder} has no graph in {lacking[0]}. Name a --precision that both have, or export it with --fp16."
        )


def check_same(infer: Infer, subject: Subject, precision: str = "fp32") -> None:
    """Raises BadRequest where something does not compute, on the timed case, what the artifact was verified against."""
    manifest = subject.artifact.manifest
    blank = Check("its output", precision, "as timed", "", "", None, tolerance_of(manifest, precision))
    try:
        checks = checks_of(infer, [subject.case], blank, manifest.get("fp32_errors", {}))
    except DeployAttnError:
        raise
    except Exception as error:  # a network or an engine may raise anything
        raise BadRequest(f"It does not run: {first_line(error)}") from error
    failed = next((check for check in checks if not check.passed), None)
    if failed is not None:
        raise BadRequest(
            f"It computes something else than what the artifact was verified against, and was not timed. "
            f"{failure(failed)}."
        )


def _check_starts(artifact: Artifact, engine: str, precision: str) -> None:
    """Raises BadRequest where the engine is not here, which says more than that there is no verdict of it."""
    settings = engine_settings(engine, artifact, precision, None)
    try:
        with timed_runner(artifact, engine, precision, settings):
            pass
    except DeployAttnError:
        raise
    except Exception:  # noqa: S110 - that an engine refuses the graph is for `verify` to tell
        pass


def _doubt(folder: Path, artifact: Artifact, engine: str) -> str:
    """Why the artifact is not known to compute what it should in that engine; empty where it is."""
    file = folder / f"verdict-{engine}.json"
    if not file.is_file():
        return f"it has no verdict for {engine}"
    verdict = read_verdict(file)
    if verdict.engine != engine or verdict.artifact_sha256 != artifact.manifest[SELF_HASH]:
        return f"{file.name} is of another export or engine"
    return "" if verdict.passed else f"{file.name} says that it fails parity"
