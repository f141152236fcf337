"""The network that an artifact was exported from, built again from what its manifest says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.json_fields import Fields
from deploy_attn.engines.settings import Settings
from deploy_attn.export.input_spec import InputSpec
from deploy_attn.jetson.artifact import Artifact, Case, file_sha256
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact
from deploy_attn.request import ExportRequest
from deploy_attn.rivals.rival import Ground

if TYPE_CHECKING:
    from deploy_attn.subject import Subject

_SHOWN = 12  # digits of a hash


@dataclass(frozen=True)
class OwnFiles:
    """Where a user's own files are; without one, the file of the manifest's name in the current folder.

    Either must be, byte for byte, what the artifact was exported from.
    """

    source: Path | None = None
    checkpoint: Path | None = None


def ground_of(artifact: Artifact, case: Case, files: OwnFiles, settings: Settings) -> Ground:
    """What rivals of an artifact are made from.

    Args:
        case: whose arrays are timed.
        files: the user's own, which are executed (the source) or read.
        settings: of onnxruntime; their threads are those of every rival.

    Raises:
        BadRequest: a file is missing or another one, or the network does not take these inputs any more.
        DamagedArtifact: the manifest says nothing that can be built.
    """
    from deploy_attn.export.arguments import Call
    from deploy_attn.export.onnx_from_module import GraphRequest
    from deploy_attn.modules.naive_forms import naive

    top = Fields(Path(artifact.path) / "manifest.json", artifact.manifest, "Export the artifact again.")
    source = top.part("source")
    subject = _subject(top, source, case, files)
    arguments = subject.call.arguments(case.inputs)
    from_catalogue = source.text("kind") == "catalogue"
    return Ground(
        artifact=artifact,
        network=naive(source.text("name"), subject.network) if from_catalogue else subject.network,
        call=Call(arguments, subject.call.names),
        feeds=case.inputs,
        request=GraphRequest(
            top.count("opset"), top.count("ir_version"), top.flag("dynamic_batch"), top.flag("dynamic_size")
        ),
        settings=settings,
        threads=settings.intra_op_threads or 1,
    )


def _subject(top: Fields, source: Fields, case: Case, files: OwnFiles) -> Subject:
    """The network with its weights, called with the inputs of a case."""
    from deploy_attn.export.arguments import INPUT

    request = _request(top, source, files)
    by_place = [InputSpec(array.shape, None, str(array.dtype)) for array in case.inputs.values()]
    if list(case.inputs) != [INPUT] and all(name.isidentifier() for name in case.inputs):
        try:
            by_name = [replace(spec, name=name) for name, spec in zip(case.inputs, by_place)]
            return _called(request, by_name, case)
        except BadRequest:  # forward may take them as *args, whose names are made up
            pass
    return _called(request, by_place, case)


def _called(request: Mapping[str, Any], specs: Sequence[InputSpec], case: Case) -> Subject:
    from deploy_attn.subject import source_of, subject_of

    wanted = ExportRequest(**request, shape=[spec.text for spec in specs])
    subject = subject_of(wanted, source_of(wanted))
    if set(subject.call.names) == set(case.inputs):
        return subject
    raise BadRequest(
        f"{wanted.name} takes inputs {', '.join(subject.call.names)}, and the artifact has {', '.join(case.inputs)}. "
        "Export it again."
    )


def _request(top: Fields, source: Fields, files: OwnFiles) -> dict[str, Any]:
    """The arguments of the export, but for the shapes."""
    kind, checkpoint = source.text("kind"), None
    if kind not in ("catalogue", "factory"):
        source.refuse("kind", "is {}, and neither a catalogue module nor a factory")
    if files.source is not None and kind == "catalogue":
        raise BadRequest(f"--source {files.source} is for networks of one's own; this is {source.text('name')}.")
    if files.checkpoint is not None and not source.has("checkpoint"):
        raise BadRequest(f"--checkpoint {files.checkpoint} was given, and the artifact was exported without one.")
    if source.has("checkpoint"):
        checkpoint = _own_file(source.part("checkpoint"), files.checkpoint, "--checkpoint")
    semantics = top.text("semantics") if top.has("semantics") else None
    request: dict[str, Any] = {"seed": source.count("seed"), "checkpoint": checkpoint, "semantics": semantics}
    if kind == "factory":
        file = _own_file(source, files.source, "--source")
        return {**request, "name": f"{file}:{source.text('factory')}"}
    options = {name: value for name, value in source.part("options").values.items() if name != "channels"}
    return {**request, "name": source.text("name"), "options": options}


def _own_file(described: Fields, given: Path | None, option: str) -> Path:
    """The user's own file that a manifest describes by name and hash."""
    name, wanted = described.text("file"), described.text("sha256")
    if Path(name).name != name:
        raise DamagedArtifact(f"{described.file} names a file {name!r}, which is none. Export the artifact again.")
    file = given or Path(name)
    if not file.is_file():
        raise BadRequest(
            f"The artifact was exported from {name}, which rivals are made from, and {file} is no file here. "
            f"Name it with {option}."
        )
    found = file_sha256(str(file))
    if found != wanted:
        raise BadRequest(
            f"{file} is not the {name} that the artifact was exported from (sha256 {found[:_SHOWN]}, the manifest says "
            f"{wanted[:_SHOWN]}). Name that one with {option}, or export the artifact again."
        )
    return file
