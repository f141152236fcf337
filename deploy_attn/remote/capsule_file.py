"""The capsule to run: bundled from an artifact's folder, or an archive that `bundle` wrote."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from deploy_attn.jetson.artifact import read_manifest
from deploy_attn.jetson.capsule import CAPSULE, open_capsule, unpack
from deploy_attn.jetson.errors import BadRequest

_SPARE = 1.5  # what unpacked files and the engine beside them take, as a share of the files


@dataclass(frozen=True)
class CapsuleFile:
    """A capsule in memory, checked as the board will check it.

    Attributes:
        name: of the archive.
        target: that it was bundled for.
        unpacked_bytes: what it needs on the board, unpacked and run.
        content: the archive.
    """

    name: str
    target: str
    unpacked_bytes: int
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def capsule_file(path: Path, target: str | None) -> CapsuleFile:
    """Reads a capsule, or bundles one from an artifact's folder.

    Args:
        path: an artifact's folder, or a .tar.gz.
        target: what to bundle for; the artifact's own target by default. A capsule has one already.

    Raises:
        BadRequest: neither, a damaged capsule, or an artifact that cannot be bundled for the target.
        DamagedArtifact, DeployAttnError: as `bundle` does.
    """
    if (path / CAPSULE).is_file():
        raise BadRequest(f"{path} is an unpacked capsule. Name its archive, or the artifact's folder.")
    with tempfile.TemporaryDirectory(prefix="deploy-attn-") as folder:
        if path.is_dir():
            return _read(_bundled(path, target, Path(folder)), folder)
        capsule = _read(path, folder)
    if target is not None and target != capsule.target:
        raise BadRequest(
            f"{path} is a capsule for {capsule.target}, not for {target}. Leave --target out, or name the artifact's "
            "folder instead of the capsule."
        )
    return capsule


def _bundled(path: Path, target: str | None, folder: Path) -> Path:
    from deploy_attn.bundling import bundle

    if target is None:
        target = str(read_manifest(str(path)).get("target"))
    report = bundle(path, target, folder / "capsule.tar.gz")
    return report.archive.rename(folder / f"{report.folder}.tar.gz")


def _read(archive: Path, scratch: str) -> CapsuleFile:
    """Unpacks a copy and checks every hash, so that no board is bothered with a damaged capsule."""
    try:
        seen = _state(archive)
        folder = unpack(str(archive), scratch)
        content = archive.read_bytes()
        if _state(archive) != seen:
            raise BadRequest(f"{archive} changed while it was read. Run it again.")
    except OSError as error:
        raise BadRequest(f"{archive} cannot be read: {error.strerror or error}.") from error
    capsule = open_capsule(folder)
    size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return CapsuleFile(archive.name, capsule.target, int(size * _SPARE), content)


def _state(file: Path) -> tuple[int, int, int]:
    """What changes when a file is written or replaced."""
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
