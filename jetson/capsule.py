"""The capsule: one folder with an artifact, the runner's sources and the hashes of both."""

import hashlib
import io
import json
import os
import stat
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from .artifact import (
    MANIFEST,
    REFERENCE,
    SCHEMA_VERSION,
    SELF_HASH,
    UNREADABLE,
    Artifact,
    Case,
    file_sha256,
    manifest_sha256,
    read_manifest,
)
from .errors import BadRequest, DamagedArtifact
from .reference import unpack as cases_of

CAPSULE = "capsule.json"
CAPSULE_SCHEMA = 1
OWN_HASH = "own_sha256"
ARTIFACT, SOURCES, LAUNCHER = "artifact", "jetson", "run.py"

_REMEDY = "Unpack the archive again, or write it again with `deploy-attn bundle`."
_MOST_DAMAGE = 20  # lines shown


class DamagedCapsule(BadRequest):
    """The folder is not what was bundled, so nothing of it was run."""


class BundledArtifact(Artifact):
    """An artifact inside a capsule: its manifest as it was, its reference as the capsule has it."""

    def __init__(self, capsule: str, manifest: Dict[str, Any], reference: Mapping[str, Any]) -> None:
        super().__init__(os.path.join(capsule, ARTIFACT), manifest)
        self._reference = reference
        self._file = os.path.join(capsule, REFERENCE)

    def cases(self) -> List[Case]:
        """The parity cases, in the manifest's order, with large outputs thinned.

        Raises:
            BadRequest: this numpy does not make the inputs that were bundled.
            DamagedCapsule: no bundle would have written such a reference.
        """
        try:
            with io.open(self._file, "rb") as stream:
                return cases_of(stream, self._reference, self.manifest["cases"])
        except UNREADABLE + (TypeError, AttributeError, IndexError) as error:
            raise DamagedCapsule(
                "{} cannot be read as parity cases: {!r}. {}".format(self._file, error, _REMEDY)
            ) from error


class Capsule(NamedTuple):
    """A capsule whose every file is as it was bundled.

    `facts` are the target's, by key, as `device.compute_capability`. `profile`
    has {input: [minimum, optimum, maximum]} for inputs with open axes.
    `left_out` says of each file of the artifact that is not here why.
    """

    folder: str
    name: str
    target: str
    engine: str
    facts: Mapping[str, Any]
    profile: Mapping[str, Any]
    left_out: Mapping[str, str]
    version: str
    sha256: str
    artifact: Artifact


def open_capsule(folder: str) -> Capsule:
    """Opens an unpacked capsule after checking every hash.

    Raises:
        BadRequest: not a capsule, one of another schema, or one without parity cases.
        DamagedCapsule: a file is missing, changed, added to the sources, or a link.
    """
    listed = _read(folder)
    if listed.get("schema_version") != CAPSULE_SCHEMA:
        raise BadRequest(
            "{} has schema version {!r}; this runner reads version {}. Bundle the artifact again.".format(
                os.path.join(folder, CAPSULE), listed.get("schema_version"), CAPSULE_SCHEMA
            )
        )
    damage = find_damage(folder, listed)
    if damage:
        raise _damaged(folder, damage)
    target = listed["target"]
    return Capsule(
        folder=folder,
        name=str(listed["name"]),
        target=str(target["name"]),
        engine=str(target["engine"]),
        facts=dict(target["facts"]),
        profile=dict(listed.get("profile") or {}),
        left_out=dict(listed.get("left_out") or {}),
        version=str(listed["deploy_attn"]),
        sha256=str(listed[OWN_HASH]),
        artifact=_artifact(folder, listed),
    )


def own_sha256(listed: Mapping[str, Any]) -> str:
    """Hash of capsule.json without its own hash, over canonical JSON."""
    rest = {key: value for key, value in listed.items() if key != OWN_HASH}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def find_damage(folder: str, listed: Mapping[str, Any]) -> List[str]:
    """One line for each file that is not as it was bundled."""
    if listed.get(OWN_HASH) != own_sha256(listed):
        return ["{}: changed since it was bundled (its own hash does not match)".format(CAPSULE)]
    problem = _malformed(listed)
    if problem:
        return ["{}: {}".format(CAPSULE, problem)]
    files = listed["files"]
    damage = [line for name in sorted(files) for line in _file_damage(folder, name, files[name])]
    return damage + ["{}: not a file of the capsule".format(name) for name in _added(folder, files)]


def is_inside(name: str) -> bool:
    """Whether a name, with slashes, stays within the folder that it is relative to, on any system."""
    parts = name.split("/")
    plain = not any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts)
    return plain and not os.path.isabs(name) and not os.path.splitdrive(name)[0]


def unpack(archive: str, folder: str) -> str:
    """Unpacks a capsule's archive below a folder, see `archive.unpack`; a run on a board has no use for it."""
    from .archive import unpack as unpack_archive

    return unpack_archive(archive, folder)


def _read(folder: str) -> Dict[str, Any]:
    file = os.path.join(folder, CAPSULE)
    if not os.path.isfile(file):
        raise BadRequest(
            "{} is not a capsule: it has no {}. Start run.py where its archive was unpacked.".format(folder, CAPSULE)
        )
    try:
        with io.open(file, encoding="utf-8") as stream:
            listed = json.load(stream)
    except (ValueError, OSError, RecursionError) as error:
        raise DamagedCapsule("{} cannot be read: {}. {}".format(file, error, _REMEDY)) from error
    if not isinstance(listed, dict):
        raise DamagedCapsule("{} holds no JSON object. {}".format(file, _REMEDY))
    return listed


def _malformed(listed: Mapping[str, Any]) -> Optional[str]:
    """What no bundle would have written, however well the hashes match."""
    target, files = listed.get("target"), listed.get("files")
    if not isinstance(files, dict) or not all(isinstance(one, str) for one in files.values()):
        return "lists no files with their hashes"
    if not isinstance(target, dict) or not {"name", "engine", "facts"} <= set(target):
        return "names no target"
    if not isinstance(target["facts"], dict):
        return "holds no facts of its target"
    for key in ("profile", "left_out", "reference"):
        if not isinstance(listed.get(key) or {}, dict):
            return "{!r} is not an object".format(key)
    missing = [key for key in ("name", "deploy_attn") if key not in listed]
    missing += [name for name in (LAUNCHER, "{}/{}".format(ARTIFACT, MANIFEST)) if name not in files]
    return "lacks {}".format(", ".join(missing)) if missing else None


def _file_damage(folder: str, name: str, expected: str) -> List[str]:
    if not is_inside(name):
        return ["{!r}: not a file inside the capsule".format(name)]
    path = folder
    for part in name.split("/"):
        path = os.path.join(path, part)
        if os.path.islink(path):
            return ["{}: a link, and not the file that was bundled".format(name)]
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return ["{}: not a plain file".format(name)]
        return [] if file_sha256(path) == expected else ["{}: changed since it was bundled".format(name)]
    except FileNotFoundError:
        return ["{}: missing".format(name)]
    except OSError as error:
        return ["{}: cannot be read ({})".format(name, error.strerror or error)]


def _added(folder: str, files: Mapping[str, str]) -> List[str]:
    """Files among the sources and the artifact that nobody vouches for; Python's own caches aside."""
    added = []
    for part in (ARTIFACT, SOURCES):
        for name in sorted(os.listdir(os.path.join(folder, part))):
            path = "{}/{}".format(part, name)
            if path not in files and name != "__pycache__":
                added.append(path)
    return added


def _damaged(folder: str, damage: List[str]) -> DamagedCapsule:
    more = ["and {} more".format(len(damage) - _MOST_DAMAGE)] if len(damage) > _MOST_DAMAGE else []
    return DamagedCapsule(
        "The capsule {} is damaged and was not run:\n  {}\n{}".format(
            folder, "\n  ".join(damage[:_MOST_DAMAGE] + more), _REMEDY
        )
    )


def _artifact(folder: str, listed: Mapping[str, Any]) -> Artifact:
    """The artifact that is inside; its manifest vouches for the same files as the capsule does."""
    try:
        manifest = read_manifest(os.path.join(folder, ARTIFACT))
    except DamagedArtifact as error:
        raise _damaged(folder, [str(error)]) from error
    files = manifest.get("files")
    if manifest.get("schema_version") != SCHEMA_VERSION or not isinstance(files, dict):
        raise BadRequest(
            "The artifact in {} has schema version {!r}; this runner reads version {}. Bundle it again.".format(
                folder, manifest.get("schema_version"), SCHEMA_VERSION
            )
        )
    if manifest.get(SELF_HASH) != manifest_sha256(manifest):
        raise _damaged(folder, ["{}/{}: its own hash does not match".format(ARTIFACT, MANIFEST)])
    here = {name: files[name] for name in files if "{}/{}".format(ARTIFACT, name) in listed["files"]}
    damage = [
        "{}/{}: not the file that the artifact's manifest vouches for".format(ARTIFACT, name)
        for name in sorted(here)
        if listed["files"]["{}/{}".format(ARTIFACT, name)] != files[name]
    ]
    if damage:
        raise _damaged(folder, damage)
    if REFERENCE not in listed["files"] or not listed.get("reference") or not manifest.get("cases"):
        raise BadRequest(
            "The capsule {} has no reference ({} with parity cases), without which nothing can be compared. Export "
            "the artifact again and bundle it.".format(folder, REFERENCE)
        )
    return BundledArtifact(folder, dict(manifest, files=here), listed["reference"])
