"""Engine files beside the graphs that they were built from: written whole, and loaded only where they belong.

An engine is native code for one graph, one TensorRT and one kind of GPU. Its
manifest says which; what does not match is refused with the reason, before the
runtime sees a byte of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from deploy_attn.engines.folder_lock import locked
from deploy_attn.jetson.artifact import Artifact
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.tensorrt_module import title

SCHEMA_VERSION = 1
SELF_HASH = "manifest_sha256"
PLAN = "precision_plan.json"

# Which engines may be loaded by another major version, where they were built to be:
# TensorRT's support matrix, "Engine Portability", release 11.4.1.
_TO_NEXT_MAJOR = frozenset({(8, 10), (10, 11)})
_FIRST_COMPATIBLE = (8, 6)
_AMPERE = (8, 0)
_KEY_DIGITS = 12
_NAME = rf"[a-z][a-z-]*-fp(?:16|32)-[0-9a-f]{{{_KEY_DIGITS}}}"


class Here(NamedTuple):
    """What an engine would be loaded by: the runtime's version, and the GPU's compute capability, as `8.6`."""

    runtime_version: str
    compute_capability: str


@dataclass(frozen=True)
class EngineKey:
    """All that decides which engine a build gives.

    Attributes:
        engine: `tensorrt` or `tensorrt-rtx`.
        runtime_version: of the library that builds it.
        compute_capabilities: of the GPUs that it is for.
        system: operating system and processor, where the engine is bound to them; else empty.
        precision: `fp32` or `fp16`.
        graph_file: the graph that it is built from.
        graph_sha256: of that file.
        plan_sha256: of the precision plan, where the builder follows it rather than the graph's types.
        options: profile, workspace and flags; JSON values.
    """

    engine: str
    runtime_version: str
    compute_capabilities: tuple[str, ...]
    system: str
    precision: str
    graph_file: str
    graph_sha256: str
    plan_sha256: str | None
    options: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        return _sha256(asdict(self))

    @property
    def stem(self) -> str:
        """The name of its files without their suffix."""
        return f"engine-{self.engine}-{self.precision}-{self.sha256[:_KEY_DIGITS]}"


@dataclass(frozen=True)
class EngineManifest:
    """What stands in the `.json` beside an engine.

    Attributes:
        target: the name of the target that it was built for.
        device: name and compute capability of the GPU that built it; None where none did.
        facts: what the builder said of it: kernels, traffic, layers. JSON values.
        warnings: the builder's.
    """

    key: EngineKey
    target: str
    device: Mapping[str, Any] | None
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        capabilities = list(self.key.compute_capabilities)
        content = {
            "schema_version": SCHEMA_VERSION,
            "file": f"{self.key.stem}.engine",
            "sha256": self.sha256,
            "key": {**asdict(self.key), "compute_capabilities": capabilities, "sha256": self.key.sha256},
            "target": self.target,
            "device": None if self.device is None else dict(self.device),
            "facts": dict(self.facts),
            "warnings": list(self.warnings),
        }
        return {**content, SELF_HASH: _sha256(content)}


@dataclass(frozen=True)
class EngineFile:
    """An engine whose hash holds, and its manifest."""

    path: Path
    manifest: EngineManifest
    content: bytes


def find_engine(artifact: Artifact, engine: str, precision: str, here: Here | None) -> EngineFile | None:
    """The engine of this artifact that may be loaded here; None if none was ever built.

    Of several, one that was built by this very runtime and for this very GPU
    comes first, then the latest. Where it is not known what is here (None), only
    the files are judged.

    Raises:
        BadRequest: there are engine files and none may be loaded; each is named
            with the reason.
    """
    folder = Path(artifact.path)
    loadable: list[EngineFile] = []
    refused: list[str] = []
    with locked(folder, exclusive=False):
        for stem in _stems(folder, engine, precision):
            try:
                manifest = _manifest(folder / f"{stem}.json", stem)
                _check_graph(artifact, manifest.key)
                if here is not None:
                    _check_runtime(manifest.key, here)
                loadable.append(_intact(folder / f"{stem}.engine", manifest))
            except _Refused as reason:
                refused.append(f"{stem}.engine: {reason}")
    if loadable:
        return max(loadable, key=lambda file: (here and _is_exact(file, here), file.path.stat().st_mtime_ns))
    if not refused:
        return None
    by = (
        f"{title(engine)} {here.runtime_version} on compute capability {here.compute_capability}"
        if here
        else "any machine"
    )
    raise BadRequest(
        f"{artifact.path} has no {precision} engine for {engine} that can be loaded by {by}:\n  "
        + "\n  ".join(refused)
        + f"\nBuild one here: `deploy-attn build {artifact.path} --engine {engine} --precision {precision} "
        "--target TARGET`."
    )


def find_built(folder: Path, key: EngineKey) -> EngineFile | None:
    """The intact engine of exactly this key, if it is there."""
    with locked(folder, exclusive=False), contextlib.suppress(_Refused):
        manifest = _manifest(folder / f"{key.stem}.json", key.stem)
        if manifest.key.sha256 == key.sha256:
            return _intact(folder / f"{key.stem}.engine", manifest)
    return None


def write_engine(folder: Path, manifest: EngineManifest, content: bytes) -> EngineFile:
    """Writes an engine, then the manifest that vouches for it; one of the same key is replaced.

    Raises:
        BadRequest: the file system refuses; nothing stays of the attempt.
    """
    text = json.dumps(manifest.as_dict(), indent=2, allow_nan=False) + "\n"
    path = folder / f"{manifest.key.stem}.engine"
    try:
        with (
            locked(folder, exclusive=True),
            _written(path, content) as engine,
            _written(path.with_suffix(".json"), text.encode("utf-8")) as words,
        ):
            os.replace(engine, path)
            os.replace(words, path.with_suffix(".json"))
    except OSError as error:
        raise BadRequest(
            f"The engine was built and cannot be written to {folder}: {error.strerror or error}. "
            "Make room there, or build a copy of the artifact in a folder that can be written."
        ) from error
    return EngineFile(path, manifest, content)


def is_engine_file(name: str) -> bool:
    """Whether a build gives files this name; also those that a build left when it was killed."""
    return re.fullmatch(rf"engine-{_NAME}\.(engine|json)|\.engine-{_NAME}\.\w+\.\d+\.partial", name) is not None


class _Refused(Exception):
    """Why an engine is not loaded, as the rest of a sentence after its name."""


def _stems(folder: Path, engine: str, precision: str) -> list[str]:
    names = {file.name for file in folder.glob(f"engine-{engine}-{precision}-*") if is_engine_file(file.name)}
    return sorted({name.rpartition(".")[0] for name in names})


def _intact(path: Path, manifest: EngineManifest) -> EngineFile:
    """The engine that the manifest vouches for; raises _Refused where it is another."""
    if not path.is_file():
        raise _Refused("missing, though its manifest is there")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _Refused(f"cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise _Refused("changed since it was built (sha256 does not match)")
    return EngineFile(path, manifest, content)


def _manifest(file: Path, stem: str) -> EngineManifest:
    if not file.is_file():
        raise _Refused(f"has no manifest ({file.name}): its build did not end, or only a part was copied")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise _Refused("its manifest is not that of a build")
        rest = {name: value for name, value in content.items() if name != SELF_HASH}
        holds = content.get(SELF_HASH) == _sha256(rest)
    except (OSError, ValueError, RecursionError) as error:
        raise _Refused(f"its manifest cannot be read ({error})") from error
    if content.get("schema_version") != SCHEMA_VERSION:
        raise _Refused(f"its manifest is of schema version {content.get('schema_version')}, not {SCHEMA_VERSION}")
    if not holds:
        raise _Refused("its manifest changed since it was built (its own hash does not match)")
    manifest = _manifest_from(content)
    if manifest.key.stem != stem:
        raise _Refused(f"its manifest is that of {manifest.key.stem}.engine")
    return manifest


def _manifest_from(content: Mapping[str, Any]) -> EngineManifest:
    """What a build wrote; the hash that holds vouches for the types of its values."""
    try:
        given = {field.name: content["key"][field.name] for field in fields(EngineKey)}
        key = EngineKey(**{**given, "compute_capabilities": tuple(given["compute_capabilities"])})
        rest = {field.name: content[field.name] for field in fields(EngineManifest) if field.name != "key"}
        return EngineManifest(key=key, **{**rest, "warnings": tuple(rest["warnings"])})
    except (KeyError, TypeError) as error:
        raise _Refused(f"its manifest lacks what a build writes ({error})") from error


def _check_graph(artifact: Artifact, key: EngineKey) -> None:
    """Raises _Refused unless the engine was built from these very files of this artifact."""
    files = artifact.manifest["files"]
    if files.get(key.graph_file) != key.graph_sha256:
        raise _Refused(f"built from another {key.graph_file} (exported again since, or of another artifact)")
    if key.plan_sha256 is not None and files.get(PLAN) != key.plan_sha256:
        raise _Refused(f"built with another {PLAN} (exported again since, or of another artifact)")


def _check_runtime(key: EngineKey, here: Here) -> None:
    """Raises _Refused unless this runtime, on this GPU and system, may load the engine."""
    product, system = title(key.engine), this_system()
    if key.runtime_version != here.runtime_version:
        if not key.options.get("version_compatible"):
            raise _Refused(f"built by {product} {key.runtime_version}; here is {here.runtime_version}")
        if not _loads_compatible(key.runtime_version, here.runtime_version):
            raise _Refused(
                f"built by {product} {key.runtime_version}, version-compatible, which does not reach "
                f"{here.runtime_version}: only newer ones of the same major version, and 10 from 8, 11 from 10"
            )
    if here.compute_capability not in key.compute_capabilities:
        built_for = " and ".join(key.compute_capabilities)
        if not key.options.get("hardware_compatible"):
            raise _Refused(f"built for compute capability {built_for}; this GPU is {here.compute_capability}")
        if not is_ampere_or_newer(here.compute_capability):
            gpu = f"this GPU is {here.compute_capability}"
            raise _Refused(f"built for compute capability 8.0 and newer (hardware-compatible); {gpu}")
    if key.system not in ("", system):
        raise _Refused(f"built on {key.system}; here is {system}")


def is_ampere_or_newer(compute_capability: str) -> bool:
    """Whether a hardware-compatible engine may run on it."""
    return _numbers(compute_capability) >= _AMPERE


def is_older(version: str, than: tuple[int, int]) -> bool:
    """Whether a runtime's version comes before a major and minor one."""
    return _numbers(version)[:2] < than


def this_system() -> str:
    return f"{platform.system()} {platform.machine()}"


def _loads_compatible(built: str, here: str) -> bool:
    old, new = _numbers(built), _numbers(here)
    if old[:2] < _FIRST_COMPATIBLE or new < old:
        return False
    return old[0] == new[0] or (old[0], new[0]) in _TO_NEXT_MAJOR


def _numbers(version: str) -> tuple[int, ...]:
    """`10.13.2.6` as numbers; what follows them, as `rc1`, is left out."""
    return tuple(int(part) for part in re.split(r"[^\d.]", version)[0].split(".") if part)


def _is_exact(file: EngineFile, here: Here) -> bool:
    key = file.manifest.key
    return key.runtime_version == here.runtime_version and here.compute_capability in key.compute_capabilities


def _sha256(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


@contextlib.contextmanager
def _written(path: Path, content: bytes) -> Iterator[Path]:
    """A hidden sibling with this content, which is gone after the block unless it was renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        yield partial
    finally:
        partial.unlink(missing_ok=True)
