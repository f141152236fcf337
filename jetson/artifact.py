"""Reading an artifact: the manifest first, then every hash, then the contents."""

import hashlib
import io
import json
import os
import zipfile
import zlib
from typing import Any, Dict, List, Mapping, Optional, Union

import numpy as np

from .errors import BadRequest, DamagedArtifact
from .thinning import Thinned

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SELF_HASH = "manifest_sha256"

REFERENCE = "reference.npz"

# What numpy, zipfile and zlib raise over a reference.npz that is none.
UNREADABLE = (ValueError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipfile, zlib.error)


Expected = Union[np.ndarray, Thinned]


class Case:
    """One parity case: named inputs and the outputs expected of them.

    `expected` has every output, `outputs` those of them that are whole, which are all but in a capsule.
    """

    def __init__(
        self,
        name: str,
        inputs: Dict[str, np.ndarray],
        outputs: Dict[str, np.ndarray],
        expected: Optional[Mapping[str, Expected]] = None,
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
        self.expected: Mapping[str, Expected] = outputs if expected is None else expected


class Artifact:
    """A verified view of an artifact folder; made by `open_artifact`."""

    def __init__(self, path: str, manifest: Dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    def file(self, name: str) -> str:
        """Path of a file that the manifest vouches for; any other name is refused."""
        if name not in self.manifest["files"]:
            raise DamagedArtifact(
                "{} of {}: the manifest vouches for no such file. Export it again.".format(name, self.path)
            )
        return os.path.join(self.path, name)

    def cases(self) -> List[Case]:
        """The parity cases of reference.npz, in the manifest's order.

        Keys are `CASE/inputs/NAME` and `CASE/outputs/NAME`.
        """
        file = self.file(REFERENCE)
        try:
            with io.open(file, "rb") as stream, open_npz(stream) as arrays:
                return [
                    Case(name, _part(arrays, name, "inputs"), _part(arrays, name, "outputs"))
                    for name in self.manifest["cases"]
                ]
        except UNREADABLE as error:
            raise DamagedArtifact(
                "{} of {} cannot be read as parity cases: {}. Export it again.".format(REFERENCE, self.path, error)
            ) from error


def open_artifact(path: str) -> Artifact:
    """Opens an artifact folder after checking its manifest and every hash.

    Raises:
        BadRequest: the folder is not an artifact, or one of another schema.
        DamagedArtifact: a file is missing or differs from the manifest.
    """
    manifest = read_manifest(path)
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BadRequest(
            "{} has schema version {!r}; this release reads version {}. "
            "Export it again, or use the release that wrote it.".format(path, version, SCHEMA_VERSION)
        )
    damage = find_damage(path, manifest)
    if damage:
        raise DamagedArtifact(
            "{} is damaged, and nothing of it is used:\n  {}\n"
            "Export it again, or restore these files from where it was copied.".format(path, "\n  ".join(damage))
        )
    return Artifact(path, manifest)


def read_manifest(path: str) -> Dict[str, Any]:
    """The manifest as written; hashes are not checked here."""
    file = os.path.join(path, MANIFEST)
    if not os.path.isfile(file):
        raise BadRequest(
            "{} is not an artifact: it has no {}. Name the folder that `deploy-attn export` wrote.".format(
                path, MANIFEST
            )
        )
    try:
        with io.open(file, encoding="utf-8") as stream:
            manifest = json.load(stream)
    except (ValueError, OSError, RecursionError) as error:
        raise DamagedArtifact("{} cannot be read: {}. Export the artifact again.".format(file, error)) from error
    if not isinstance(manifest, dict):
        raise DamagedArtifact("{} holds no JSON object. Export the artifact again.".format(file))
    return manifest


def find_damage(path: str, manifest: Dict[str, Any]) -> List[str]:
    """One line for each file that is missing, changed or not a plain file of the folder."""
    damage = []
    if manifest.get(SELF_HASH) != manifest_sha256(manifest):
        damage.append("{}: changed since the export (its own hash does not match)".format(MANIFEST))
    files = manifest.get("files")
    if not isinstance(files, dict):
        return damage + ["{}: lists no files".format(MANIFEST)]
    for name in sorted(files):
        damage.extend(_file_damage(path, name, files[name]))
    return damage


def manifest_sha256(manifest: Dict[str, Any]) -> str:
    """Hash of the manifest without its own hash, over canonical JSON."""
    rest = {key: value for key, value in manifest.items() if key != SELF_HASH}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def file_sha256(file: str) -> str:
    digest = hashlib.sha256()
    with io.open(file, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _file_damage(path: str, name: str, expected: Any) -> List[str]:
    if os.path.basename(name) != name or name in ("", ".", ".."):
        return ["{!r}: not a file name inside the artifact".format(name)]
    file = os.path.join(path, name)
    if os.path.islink(file) or not os.path.isfile(file):
        return ["{}: missing".format(name)]
    if file_sha256(file) != expected:
        return ["{}: changed since the export (sha256 does not match)".format(name)]
    return []


def open_npz(stream: Any) -> Any:
    """An open archive of arrays. The stream stays the caller's, who closes it whatever happens here."""
    if not zipfile.is_zipfile(stream):
        raise ValueError("it is not a zip archive")
    stream.seek(0)
    return np.load(stream, allow_pickle=False)


def arrays_of(arrays: Any, prefix: str) -> Dict[str, np.ndarray]:
    """The arrays of an open archive whose keys begin so, by the rest of their keys.

    Raises:
        ValueError: an entry is none.
    """
    found = {key[len(prefix) :]: arrays[key] for key in arrays.files if key.startswith(prefix)}
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise ValueError("{}{} is not an array".format(prefix, name))
    return found


def _part(arrays: Any, case: str, part: str) -> Dict[str, np.ndarray]:
    prefix = "{}/{}/".format(case, part)
    found = arrays_of(arrays, prefix)
    if not found:
        raise KeyError(prefix)
    return found
