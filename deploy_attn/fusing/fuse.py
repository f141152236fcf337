"""An artifact's module as one fused operator: a graph of its own, held to the artifact's parity cases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.fused.engine import FusedRunner
from deploy_attn.engines.fused.graph_file import ENGINE, content_of, fused_file
from deploy_attn.engines.fused.library import SYSTEMS, fused_library
from deploy_attn.engines.json_fields import Fields
from deploy_attn.export.checkpoint import load_checkpoint
from deploy_attn.jetson.artifact import MANIFEST, Artifact, open_artifact
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.parity import Check, check_manifest, checks_of, tolerance_of
from deploy_attn.jetson.verdict import failure
from deploy_attn.output_file import check_output, write_output
from deploy_attn.stored import check_can_keep

if TYPE_CHECKING:
    from deploy_attn.modules.base import ReferenceForm

_REMEDY = "Export the artifact again."


@dataclass(frozen=True)
class Fused:
    """A graph of one fused operator, the library that runs it, and how far each parity case is from the reference.

    `kept` says that it lies in the artifact's folder, where the engine `onnxruntime-fused` finds it.
    """

    name: str
    folder: Path
    file: Path
    library: Path
    checks: tuple[Check, ...]
    kept: bool

    @property
    def passed(self) -> bool:
        """True: what does not hold is not written."""
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "name": self.name,
            "file": str(self.file),
            "library": str(self.library),
            "engine": ENGINE if self.kept else None,
            "checks": [check.as_dict() for check in self.checks],
        }


def fuse(
    folder: str | Path, output: str | Path | None = None, checkpoint: str | Path | None = None, force: bool = False
) -> Fused:
    """Writes a catalogue artifact's module as one operator for onnxruntime on a CPU, and builds the operator's library.

    In the artifact's folder it is what the engine `onnxruntime-fused` runs. A session of one's own needs the library:
    `options.register_custom_ops_library(str(fused.library))`. It is written only if it agrees with the artifact's
    reference on every parity case. It runs in FP32 on one thread, whatever the session's threads are, and takes any
    batch, height and width.

    Args:
        output: FILE.onnx; None for the artifact's folder, where it replaces what an earlier call left.
        checkpoint: the file that the artifact was exported with, where it was exported with one.
        force: replace an `output` that is there.

    Raises:
        BadRequest: not an artifact, no module that has a fused operator, no C compiler, or `output` cannot be written.
        DamagedArtifact: a file differs from the manifest.
        DeployAttnError: the operator does not agree with the reference, or the library does not compile.
    """
    file = fused_file(folder) if output is None else Path(output)
    if output is not None:
        check_output(file, force, "fused.onnx")
    artifact = open_artifact(str(folder))
    check_manifest(artifact)
    if output is None:
        check_can_keep(file)
    reference, channels = _module_of(artifact, checkpoint)
    from deploy_attn.fusing.graph import fused_graph

    content = content_of(fused_graph(reference, channels), artifact)
    library = fused_library()
    checks = _checks(artifact, content)
    apart = [check for check in checks if not check.passed]
    if apart:
        raise DeployAttnError(
            f"The fused operator of {reference.catalogue_name} is not {folder}: {'; '.join(map(failure, apart))}. "
            "Nothing was written. An artifact of a checkpoint is fused with --checkpoint; else run its own graph."
        )
    write_output(file, content, force or output is None)
    return Fused(reference.catalogue_name, Path(folder), file, library, checks, kept=output is None)


def _checks(artifact: Artifact, content: bytes) -> tuple[Check, ...]:
    """The operator against every parity case, held to what the artifact's own FP32 graph is held to."""
    blank = Check("fused", "fp32", "exact", "", "", None, tolerance_of(artifact.manifest, "fp32"))
    with FusedRunner(content) as runner:
        return tuple(checks_of(runner.infer, artifact.cases(), blank, artifact.manifest.get("fp32_errors", {})))


def _module_of(artifact: Artifact, checkpoint: str | Path | None) -> tuple[ReferenceForm, int]:
    """The module that the artifact was exported from, and the channels of its map."""
    import torch

    from deploy_attn.modules.create import create
    from deploy_attn.modules.disturb import disturb_constants

    manifest = Fields(Path(artifact.path) / MANIFEST, artifact.manifest, _REMEDY)
    source = manifest.part("source")
    if source.text("kind") != "catalogue":
        raise BadRequest(
            f"{artifact.path} is of a network, and fused operators are single modules of the catalogue: "
            f"{', '.join(SYSTEMS)}."
        )
    if source.has("checkpoint") and checkpoint is None:
        file = source.part("checkpoint").text("file")
        raise BadRequest(f"{artifact.path} was exported with the checkpoint {file}. Name it with --checkpoint.")
    name, options = source.text("name"), source.part("options").values
    if name not in SYSTEMS:
        raise BadRequest(f"{artifact.path} is of {name}, which has no fused operator: {', '.join(SYSTEMS)} have one.")
    torch.manual_seed(source.count("seed"))
    module = create(name, **options).eval()
    if checkpoint is None:
        disturb_constants(module)
    else:
        load_checkpoint(module, Path(checkpoint))
    return module, next(iter(artifact.cases()[0].inputs.values())).shape[1]
