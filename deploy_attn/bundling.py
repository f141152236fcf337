"""The capsule of an artifact for one target: what that target can use, and what runs it there, in one archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy_attn.capsule_text import LAUNCHER, README
from deploy_attn.engines.target import Target, load_target
from deploy_attn.jetson.artifact import MANIFEST, REFERENCE, Artifact, Case, open_artifact
from deploy_attn.jetson.capsule import (
    ARTIFACT,
    CAPSULE,
    CAPSULE_SCHEMA,
    OWN_HASH,
    SOURCES,
    own_sha256,
)
from deploy_attn.jetson.capsule import (
    LAUNCHER as LAUNCHER_FILE,
)
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact, DeployAttnError
from deploy_attn.jetson.reference import Packed, pack
from deploy_attn.output_file import check_output, write_output

SUFFIX = ".tar.gz"
_FIRST_TYPED = (10, 0)  # TensorRT with strongly typed networks
_MOST_FINDINGS = 5
_GRAPH, _TYPED = "model.onnx", "model.fp16.onnx"
_EXECUTABLE, _PLAIN = 0o755, 0o644


@dataclass(frozen=True)
class ReferenceSize:
    """What a capsule holds of an artifact's reference, `size_bytes` of `artifact_bytes`, before compression.

    Inputs are `regenerated` on the board or stored, outputs `thinned` or stored.
    """

    size_bytes: int
    artifact_bytes: int
    regenerated_inputs: int
    stored_inputs: int
    stored_inputs_bytes: int
    thinned_outputs: int
    stored_outputs: int


@dataclass(frozen=True)
class BundleReport:
    """What went into a capsule.

    Attributes:
        archive: the file that was written.
        folder: the one folder in it.
        size_bytes: of the archive.
        sha256: of the archive.
        parts: bytes before compression: `graphs`, `reference`, `runner` and `rest`.
        left_out: files of the artifact that the target cannot use, and why.
        reference: how the reference came to be as large as it is.
    """

    archive: Path
    folder: str
    name: str
    target: str
    size_bytes: int
    sha256: str
    parts: Mapping[str, int]
    left_out: Mapping[str, str]
    reference: ReferenceSize

    @property
    def passed(self) -> bool:
        """A capsule that is not right is not written."""
        return True

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "archive": str(self.archive),
            "folder": self.folder,
            "name": self.name,
            "target": self.target,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "parts": dict(self.parts),
            "left_out": dict(self.left_out),
            "reference": asdict(self.reference),
        }


def bundle(path: str | Path, target: str, output: str | Path | None = None, force: bool = False) -> BundleReport:
    """Writes a capsule; the same artifact and target give the same bytes.

    Args:
        path: a folder that `export` wrote.
        target: a name from `target_names()`, or a profile by its path.
        output: the archive; by default NAME-TARGET.tar.gz beside the artifact's folder.
        force: replace an archive that is there.

    Raises:
        BadRequest: not an artifact, an unknown target, an artifact for another
            opset or IR version than the target's or without parity cases, or
            the archive cannot be written.
        DamagedArtifact: a file differs from the manifest.
        DeployAttnError: lint finds what the target would refuse or misread.
    """
    goal = load_target(target)
    artifact = open_artifact(str(path))
    _check_versions(artifact, goal)
    cases = _cases(artifact)
    name = f"{_plain(artifact.manifest.get('name'))}-{_plain(goal.name)}"
    archive = _destination(Path(path), output, f"{name}{SUFFIX}", force)
    _check_lint(Path(path), target, goal)
    left_out = _left_out(artifact, goal)
    packed = pack(cases, _seed(artifact))
    files = _files(artifact, packed, {**_about(artifact, goal, cases), "left_out": left_out})
    content = _archived(name, files)
    write_output(archive, content, force)
    return BundleReport(
        archive=archive,
        folder=name,
        name=str(artifact.manifest["name"]),
        target=goal.name,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        parts=MappingProxyType(_parts(files)),
        left_out=MappingProxyType(left_out),
        reference=_reference_size(artifact, cases, packed),
    )


def _check_versions(artifact: Artifact, target: Target) -> None:
    manifest = artifact.manifest
    found = (manifest.get("opset"), manifest.get("ir_version"))
    if found != (target.opset, target.ir_version):
        raise BadRequest(
            f"{artifact.path} was exported for {manifest.get('target')} at opset {found[0]}, IR {found[1]}; target "
            f"{target.name} takes opset {target.opset}, IR {target.ir_version}. "
            f"Export it again with --target {target.name}."
        )


def _cases(artifact: Artifact) -> list[Case]:
    """The parity cases, without which a capsule is for nothing."""
    manifest = artifact.manifest
    if REFERENCE not in manifest["files"] or not manifest.get("cases"):
        raise BadRequest(
            f"{artifact.path} has no reference ({REFERENCE} with parity cases), without which nothing can be compared "
            "on the device. Export it again."
        )
    if _GRAPH not in manifest["files"]:
        raise BadRequest(f"{artifact.path} has no {_GRAPH}. Export it again.")
    return artifact.cases()


def _seed(artifact: Artifact) -> int | None:
    """The seed that the manifest names, where it is one that numpy takes."""
    source = artifact.manifest.get("source")
    seed = source.get("seed") if isinstance(source, dict) else None
    return seed if isinstance(seed, int) and 0 <= seed < 1 << 32 else None


def _check_lint(folder: Path, asked: str, target: Target) -> None:
    """Raises DeployAttnError for a graph that the target would refuse or misread; the board would find out late."""
    from deploy_attn.export.linting.lint import lint

    errors = [finding for finding in lint(folder, asked).findings if finding.is_error]
    if errors:
        shown = [f"{error.rule}: {error.node or 'the model'}: {error.why} {error.remedy}" for error in errors]
        more = [f"and {len(errors) - _MOST_FINDINGS} more"] if len(errors) > _MOST_FINDINGS else []
        heading = f"{folder} was not bundled: {target.name} would refuse its graph, or compute something else."
        advice = f"Export it again with --target {target.name}."
        raise DeployAttnError("\n  ".join([heading, *shown[:_MOST_FINDINGS], *more]) + f"\n{advice}")


def _left_out(artifact: Artifact, target: Target) -> dict[str, str]:
    """Files of the artifact that the target has no use for, and why."""
    version = target.tensorrt
    if _TYPED not in artifact.manifest["files"] or version is None or version >= _FIRST_TYPED:
        return {}
    here = ".".join(map(str, version))
    reason = f"TensorRT {here} takes precision from {_GRAPH} and the plan; typed graphs come with 10.0"
    return {_TYPED: reason}


def _about(artifact: Artifact, target: Target, cases: Sequence[Case]) -> dict[str, Any]:
    """What capsule.json says of artifact and target."""
    return {
        "name": str(artifact.manifest["name"]),
        "target": {
            "name": target.name,
            "engine": target.engine,
            "facts": {key: target.value(key) for key in sorted(target.facts)},
        },
        "deploy_attn": _version(),
        "profile": _profile(artifact, cases),
    }


def _files(artifact: Artifact, packed: Packed, about: Mapping[str, Any]) -> dict[str, bytes]:
    """Contents by name in the capsule, with the list that vouches for them."""
    name, target, version = _plain(about["name"]), about["target"]["name"], about["deploy_attn"]
    files = {
        LAUNCHER_FILE: LAUNCHER.encode("ascii"),
        "README.txt": README.format(name=name, target=target, version=version).encode("utf-8"),
        REFERENCE: packed.content,
        f"{ARTIFACT}/{MANIFEST}": _content(artifact, MANIFEST),
        **{
            f"{ARTIFACT}/{file}": _content(artifact, file)
            for file in artifact.manifest["files"]
            if file not in about["left_out"] and file != REFERENCE
        },
        **_sources(),
    }
    listed: dict[str, Any] = {
        "schema_version": CAPSULE_SCHEMA,
        **about,
        "reference": packed.description,
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in sorted(files.items())},
    }
    listed[OWN_HASH] = own_sha256(listed)
    return {**files, CAPSULE: (json.dumps(listed, indent=2) + "\n").encode("ascii")}


def _content(artifact: Artifact, name: str) -> bytes:
    """A file as its manifest vouches for it, also if it changes meanwhile."""
    content = (Path(artifact.path) / name).read_bytes()
    expected = artifact.manifest["files"].get(name)
    if name != MANIFEST and hashlib.sha256(content).hexdigest() != expected:
        raise DamagedArtifact(f"{name} of {artifact.path} changed while it was read. Export it again.")
    return content


def _sources() -> dict[str, bytes]:
    """The room jetson/, from wherever it is installed."""
    import deploy_attn.jetson

    found: dict[str, bytes] = {}
    for folder in deploy_attn.jetson.__path__:
        for file in sorted(Path(folder).glob("*.py")):
            found.setdefault(f"{SOURCES}/{file.name}", file.read_bytes())
    return found


def _profile(artifact: Artifact, cases: Sequence[Case]) -> dict[str, list[list[int]]]:
    """{input: [minimum, optimum, maximum]} of inputs with open axes, from the parity cases."""
    from deploy_attn.engines.profile import input_shapes, profile_from_cases

    inputs = input_shapes(_content(artifact, _GRAPH))
    shapes = [{name: array.shape for name, array in case.inputs.items()} for case in cases]
    if any(name not in case for name in inputs for case in shapes):
        raise DamagedArtifact(f"{artifact.path} has no parity case for every input. Export it again.")
    return {name: span.as_lists() for name, span in profile_from_cases(inputs, shapes).items()}


def _reference_size(artifact: Artifact, cases: Sequence[Case], packed: Packed) -> ReferenceSize:
    described = packed.description["cases"]
    stored = [
        array for case in cases for name, array in case.inputs.items() if name not in described[case.name]["inputs"]
    ]
    regenerated = sum(len(case["inputs"]) for case in described.values())
    outputs = [output for case in described.values() for output in case["outputs"].values()]
    thinned = sum(output is not None for output in outputs)
    return ReferenceSize(
        size_bytes=len(packed.content),
        artifact_bytes=(Path(artifact.path) / REFERENCE).stat().st_size,
        regenerated_inputs=regenerated,
        stored_inputs=len(stored),
        stored_inputs_bytes=sum(array.nbytes for array in stored),
        thinned_outputs=thinned,
        stored_outputs=len(outputs) - thinned,
    )


def _parts(files: Mapping[str, bytes]) -> dict[str, int]:
    parts = {"graphs": 0, "reference": 0, "runner": 0, "rest": 0}
    for name, content in files.items():
        if name.endswith(".onnx"):
            part = "graphs"
        elif name == REFERENCE:
            part = "reference"
        else:
            part = "runner" if name.startswith(f"{SOURCES}/") or name == LAUNCHER_FILE else "rest"
        parts[part] += len(content)
    return parts


def _archived(folder: str, files: Mapping[str, bytes]) -> bytes:
    """A .tar.gz in which nothing tells when, where or by whom it was made."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(files[name])
            member.mode = _EXECUTABLE if name == LAUNCHER_FILE else _PLAIN
            tar.addfile(member, io.BytesIO(files[name]))
    return packed.getvalue()


def _destination(folder: Path, output: str | Path | None, name: str, force: bool) -> Path:
    archive = Path(os.path.abspath(folder)).parent / name if output is None else Path(output)
    check_output(archive, force, name)
    return archive


def _plain(name: object) -> str:
    """A name as a folder may have it anywhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(name)).strip(".-") or "artifact"


def _version() -> str:
    import deploy_attn

    return deploy_attn.__version__
