"""Verdicts of one artifact side by side, wherever they were made: on the host, or on boards."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploy_attn.jetson.artifact import MANIFEST, SELF_HASH, Artifact, open_artifact
from deploy_attn.jetson.capsule import CAPSULE, open_capsule
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.verdict_file import ARTIFACT_SHA256, VerdictFile, read_verdict

_VERDICTS = "verdict*.json"
_ALL_CASES = "all"  # of a graph that its engine would not run
_SHOWN = 12  # digits of a hash
ABOUT_TIMES = (
    "Each time belongs to its own run: times of one run are never compared with times of another, since clocks, power "
    "mode, temperature and what else ran there differ."
)


@dataclass(frozen=True)
class SetApart:
    """A verdict that is not of the artifact which the report is about, and how that is known."""

    verdict: VerdictFile
    reason: str


@dataclass(frozen=True)
class Report:
    """Verdicts of one artifact; `artifact` is its name as far as a folder or a verdict tells it."""

    artifact: str
    sha256: str | None
    verdicts: tuple[VerdictFile, ...]
    set_apart: tuple[SetApart, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every verdict that was named is of this artifact and holds."""
        return bool(self.verdicts) and not self.set_apart and all(verdict.passed for verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "artifact": {"name": self.artifact, "sha256": self.sha256},
            "verdicts": [_as_dict(verdict) for verdict in self.verdicts],
            "set_apart": [{**_as_dict(one.verdict), "reason": one.reason} for one in self.set_apart],
            "notes": list(self.notes),
            "about_times": ABOUT_TIMES,
        }


def report(paths: Sequence[str | Path]) -> Report:
    """Reads verdicts of the host and of boards, for one table.

    Args:
        paths: verdicts; artifact folders, for what `verify` left there; capsules that ran; folders with such
            folders or verdicts in them. The first artifact that is met is the one that the report is about.

    Raises:
        BadRequest: nothing was named, a path is none of these or holds no verdict, or a file is no verdict; the
            message names file and key.
        DamagedArtifact: a file of an artifact's folder differs from its manifest.
    """
    if not paths:
        raise BadRequest("No verdict was named. Name verdict files, or folders that hold them.")
    found = _unrepeated(one for path in paths for one in _sources(Path(path)))
    return _report_of(found, _subject(found))


@dataclass(frozen=True)
class ArtifactReport:
    """The verdicts of an artifact whose folder was named; there may be none."""

    artifact: Artifact
    report: Report


def reports_by_artifact(paths: Sequence[str | Path]) -> tuple[ArtifactReport, ...]:
    """Reads verdicts for a page: those of each artifact together, in the order of their folders.

    Args:
        paths: as `report` takes them, artifacts' folders or folders of such among them.

    Raises:
        BadRequest: no artifact's folder was named, a verdict is of none that was, or is none.
        DamagedArtifact: a file of an artifact's folder differs from its manifest.
    """
    strays = _unrepeated(one for path in paths for one in _sources_beside(Path(path)))
    folders = {folder.resolve(): folder for path in paths for folder in _artifact_folders(Path(path))}
    if not folders:
        raise BadRequest("A page is about artifacts, and no folder of one was named. Name what `export` wrote.")
    artifacts = [open_artifact(str(folder)) for folder in folders.values()]
    abouts = [_about(artifact.manifest) for artifact in artifacts]
    for stray in strays:
        if stray.sha256 not in {about.sha256 for about in abouts}:
            reason = _foreign(stray, abouts[0])
            raise BadRequest(f"{stray.verdict.file} is of none of the artifacts that were named: {reason}")
    return tuple(
        ArtifactReport(
            artifact, _report_of([*_own(artifact), *(one for one in strays if one.sha256 == about.sha256)], about)
        )
        for artifact, about in zip(artifacts, abouts)
    )


def _report_of(found: Sequence[_Source], about: _Subject) -> Report:
    reasons = [_foreign(one, about) if len(found) > 1 or about.manifest is not None else "" for one in found]
    held = [one.verdict for one, reason in zip(found, reasons) if not reason]
    return Report(
        artifact=about.name,
        sha256=about.sha256,
        verdicts=_told_apart(held),
        set_apart=tuple(SetApart(one.verdict, reason) for one, reason in zip(found, reasons) if reason),
        notes=tuple(note for verdict in held for note in _not_run(verdict, about.manifest)),
    )


@dataclass(frozen=True)
class _Subject:
    """The artifact that a report is about; its manifest where a folder has it."""

    name: str
    sha256: str | None
    manifest: Mapping[str, Any] | None


@dataclass(frozen=True)
class _Source:
    """A verdict, and the manifest of the artifact in whose folder or capsule it lies."""

    verdict: VerdictFile
    manifest: Mapping[str, Any] | None = None

    @property
    def sha256(self) -> str | None:
        """Of the artifact that was verified: as the verdict says, and else that of the folder."""
        return self.verdict.artifact_sha256 or (str(self.manifest[SELF_HASH]) if self.manifest else None)

    @property
    def name(self) -> str:
        return str((self.manifest or self.verdict.document).get("name") or "unnamed")


def _subject(found: Sequence[_Source]) -> _Subject:
    """The first artifact that is there itself, else the first that a verdict names."""
    for one in found:
        if one.manifest is not None:
            return _about(one.manifest)
    named = next((one for one in found if one.sha256 is not None), found[0])
    return _Subject(named.name, named.sha256, None)


def _about(manifest: Mapping[str, Any]) -> _Subject:
    return _Subject(str(manifest.get("name") or "unnamed"), str(manifest[SELF_HASH]), manifest)


def _artifact_folders(path: Path) -> list[Path]:
    """The artifact's folder that a path is or lies in, or those in the path."""
    folder = path if path.is_dir() else path.parent
    if (folder / MANIFEST).is_file():
        return [folder]
    if folder != path or (folder / CAPSULE).is_file():
        return []
    return sorted(file.parent for file in path.glob(f"*/{MANIFEST}") if file.is_file())


def _own(artifact: Artifact) -> list[_Source]:
    """The verdicts in an artifact's folder."""
    return [_Source(read_verdict(file), artifact.manifest) for file in sorted(Path(artifact.path).glob(_VERDICTS))]


def _sources_beside(path: Path) -> list[_Source]:
    """The verdicts that a path stands for and that are not `_own` of an artifact."""
    files = _verdict_files(path)
    if not files and not _artifact_folders(path):
        raise BadRequest(f"{path} holds neither an artifact nor a verdict. {_how_to_get_one(path)}")
    return [
        one
        for one in _read(files)
        if not ((one.verdict.file.parent / MANIFEST).is_file() and one.verdict.file.match(_VERDICTS))
    ]


def _sources(path: Path) -> list[_Source]:
    """The verdicts that a path stands for: at least one."""
    files = _verdict_files(path)
    if not files:
        raise BadRequest(f"{path} holds no verdict. {_how_to_get_one(path)}")
    return _read(files)


def _verdict_files(path: Path) -> list[Path]:
    """The file that a path is, or the verdicts in a folder or in its folders."""
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return [path]
        return sorted(path.glob(_VERDICTS)) or sorted(path.glob(f"*/{_VERDICTS}"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadRequest(f"{path} cannot be read: {reason}. Name a verdict, or a folder that holds one.") from error


def _read(files: Sequence[Path]) -> list[_Source]:
    manifests = {folder: _manifest(folder) for folder in {file.parent for file in files}}
    return [_Source(read_verdict(file), manifests[file.parent]) for file in files]


def _manifest(folder: Path) -> Mapping[str, Any] | None:
    """Of the artifact that a folder is, or that the capsule has which it is; None where it is neither."""
    if (folder / MANIFEST).is_file():
        return open_artifact(str(folder)).manifest
    if (folder / CAPSULE).is_file():
        return open_capsule(str(folder)).artifact.manifest
    return None


def _how_to_get_one(folder: Path) -> str:
    if (folder / MANIFEST).is_file():
        return f"`deploy-attn verify {folder}` writes one there."
    if (folder / CAPSULE).is_file():
        return f"`python3 run.py` in {folder}, on the board, writes one there."
    return "`deploy-attn verify` writes one into an artifact's folder, and run.py of a capsule beside itself."


def _unrepeated(sources: Iterable[_Source]) -> list[_Source]:
    """One of each file, however often and by whatever way it was named."""
    return list({source.verdict.file.resolve(): source for source in sources}.values())


def _foreign(source: _Source, about: _Subject) -> str:
    """Why a verdict cannot stand beside those of an artifact; empty where it can."""
    if source.sha256 is None or about.sha256 is None:
        return (
            f"it does not say which artifact it is of: its conditions have no {ARTIFACT_SHA256}. Verify that artifact "
            "again, or name its folder instead of the file."
        )
    if source.sha256 == about.sha256:
        return ""
    if source.manifest is not None and source.manifest.get(SELF_HASH) == about.sha256:
        return (
            f"it is of other files than the folder holds (manifest {source.sha256[:_SHOWN]}, there "
            f"{about.sha256[:_SHOWN]}). Verify that folder again."
        )
    return (
        f"it is of another artifact ({source.name}, manifest {source.sha256[:_SHOWN]}) than the report ({about.name}, "
        f"manifest {about.sha256[:_SHOWN]}). Bundle and run this artifact there, or report that verdict on its own."
    )


def _told_apart(verdicts: Sequence[VerdictFile]) -> tuple[VerdictFile, ...]:
    """With a name before where it ran: that of the board in a file of `remote`, or the folder where runs look alike."""
    looks = Counter((one.where, one.engine, one.version) for one in verdicts)
    named = []
    for one in verdicts:
        label = _label(one)
        if not label and looks[one.where, one.engine, one.version] > 1:
            label = one.file.resolve().parent.name
        named.append(replace(one, where=f"{label}: {one.where}") if label else one)
    return tuple(named)


def _label(verdict: VerdictFile) -> str:
    """`nano` of verdict-nano-tensorrt.json, as `remote` names what it brings back."""
    return verdict.file.stem.removeprefix("verdict").removesuffix(verdict.engine).strip("-")


def _not_run(verdict: VerdictFile, manifest: Mapping[str, Any] | None) -> Iterator[str]:
    """What a verdict leaves open: cases of the artifact that are in none of its checks."""
    seen = {check.case for check in verdict.checks}
    listed = (manifest or {}).get("cases")
    missing = [case for case in map(str, listed if isinstance(listed, list) else ()) if case not in seen]
    if missing and _ALL_CASES not in seen:
        yield f"{verdict.file}: nothing was checked on {', '.join(missing)}."


def _as_dict(verdict: VerdictFile) -> dict[str, Any]:
    """The verdict's own document under what the report made of it."""
    return {
        "file": str(verdict.file),
        "where": verdict.where,
        "version": verdict.version,
        "holds": verdict.passed,
        "artifact_sha256": verdict.artifact_sha256,
        "verdict": dict(verdict.document),
    }
