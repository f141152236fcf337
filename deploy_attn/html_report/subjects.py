"""What a page is about: artifacts, each with its verdicts, its measurements and its plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_attn.benching.file import BENCHES, Measured, read_bench
from deploy_attn.engines.json_fields import Fields
from deploy_attn.jetson.artifact import MANIFEST, SELF_HASH, Artifact
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.plan_file import PLAN, PlanFile, read_plan
from deploy_attn.reporting import ArtifactReport, Report, reports_by_artifact

GRAPH = "model.onnx"

_SHOWN = 12  # digits of a hash
_REMEDY = "Export it again."


@dataclass(frozen=True)
class Subject:
    """An artifact.

    `label` is its name, and where another one bears the same, also its folder: the folder's own name if that tells them
    apart, else its path. `shape` is that of each input; `plan` is None where it was exported without --fp16.
    """

    label: str
    artifact: Artifact
    target: str
    opset: int
    ir_version: int
    shape: str
    precisions: tuple[str, ...]
    tools: tuple[tuple[str, str], ...]
    report: Report
    comparisons: tuple[Measured, ...]
    plan: PlanFile | None

    @property
    def folder(self) -> Path:
        return Path(self.artifact.path)

    @property
    def graph(self) -> Path:
        return self.folder / GRAPH


def subjects_of(paths: Sequence[str | Path]) -> tuple[Subject, ...]:
    """Reads all that a page shows of its artifacts.

    Raises:
        BadRequest: what `reports_by_artifact` says, or a file that is not what it should be, or measurements of
            another artifact than they lie beside.
        DamagedArtifact: a file of an artifact's folder differs from its manifest.
    """
    found = reports_by_artifact(paths)
    return tuple(_subject(one, label) for one, label in zip(found, _labels(found)))


def _labels(found: Sequence[ArtifactReport]) -> Iterator[str]:
    names = Counter(one.report.artifact for one in found)
    folders = Counter((one.report.artifact, Path(one.artifact.path).name) for one in found)
    for one in found:
        name, folder = one.report.artifact, Path(one.artifact.path)
        place = folder.name if folder.name and folders[name, folder.name] == 1 else str(folder)
        yield f"{name} ({place})" if names[name] > 1 else name


def _subject(found: ArtifactReport, label: str) -> Subject:
    artifact = found.artifact
    folder = Path(artifact.path)
    manifest = Fields(folder / MANIFEST, artifact.manifest, _REMEDY)
    artifact.file(GRAPH)
    tools = manifest.part("tools")
    return Subject(
        label=label,
        artifact=artifact,
        target=manifest.text("target"),
        opset=manifest.count("opset"),
        ir_version=manifest.count("ir_version"),
        shape=_shapes(manifest),
        precisions=tuple(dict.fromkeys(part.text("precision") for part in manifest.parts("graphs"))),
        tools=tuple((tool, tools.text(tool)) for tool in tools.values if tools.has(tool)),
        report=found.report,
        comparisons=_comparisons(artifact),
        plan=read_plan(folder / PLAN) if PLAN in artifact.manifest["files"] else None,
    )


def _shapes(manifest: Fields) -> str:
    """`1x64x28x28`, or every input by name."""
    if manifest.has("input"):
        return _shape(manifest.part("input"))
    inputs = manifest.part("inputs")
    return ", ".join(f"{name} {_shape(inputs.part(name))}" for name in inputs.values)


def _shape(part: Fields) -> str:
    extents: Any = part.values.get("shape")
    if not isinstance(extents, list) or not all(isinstance(one, (int, str)) for one in extents):
        part.refuse("shape", "is {}, and no shape")
    return "x".join(str(one) for one in extents)


def _comparisons(artifact: Artifact) -> tuple[Measured, ...]:
    files = [read_bench(file) for file in sorted(Path(artifact.path).glob(BENCHES))]
    own = str(artifact.manifest[SELF_HASH])
    for one in files:
        if one.artifact_sha256 != own:
            raise BadRequest(
                f"{one.file} is of another artifact (manifest {one.artifact_sha256[:_SHOWN]!r}) than the folder it "
                f"lies in (manifest {own[:_SHOWN]}). Remove it, and measure again: deploy-attn bench {artifact.path}"
            )
    return tuple(comparison for one in files for comparison in one.comparisons)
