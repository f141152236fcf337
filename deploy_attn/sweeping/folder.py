"""A sweep's folder: one sweep at a time in it, and a finished cell is there whole or not at all.

sweep.json        the last plan, and what it was run with
cells/KEY.json    the outcome of a cell
artifacts/NAME/   what the cell exported, with verdict and measurement beside it
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_attn.engines.json_fields import read_fields
from deploy_attn.engines.whole_file import DRAFT
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.progress import is_free
from deploy_attn.stored import keep_text
from deploy_attn.sweeping.cell_file import Kept, read_cell
from deploy_attn.sweeping.plan import Cell, Effort, Plan, key_of
from deploy_attn.sweeping.process import Finished

SWEEP, LOCK, CELLS, ARTIFACTS, WORK = "sweep.json", "sweep.lock", "cells", "artifacts", ".work"

_KIND = "deploy-attn sweep"
_SCHEMA = 1


@dataclass(frozen=True)
class Before:
    """What the last sweep into a folder was asked, and with which versions."""

    plan: Mapping[str, Any]
    made_with: Mapping[str, Any]


@dataclass(frozen=True)
class SweepFolder:
    """A folder that this process has to itself; `before` is None in one that is new."""

    root: Path
    before: Before | None

    @property
    def work(self) -> Path:
        return self.root / WORK

    def begin(self, plan: Plan, made_with: Mapping[str, str]) -> None:
        """Writes down what this sweep is asked, which makes the folder its own, and removes what a killed one left."""
        content = {"schema_version": _SCHEMA, "kind": _KIND, "plan": plan.as_dict(), "made_with": dict(made_with)}
        keep_text(self.root / SWEEP, _json(content))
        with _writable(self.root):
            shutil.rmtree(self.work, ignore_errors=True)
            for folder in (self.work, self.root / CELLS, self.root / ARTIFACTS):
                folder.mkdir(exist_ok=True)

    def kept(self, key: str) -> Kept | None:
        """What is there of a cell.

        Raises:
            BadRequest: a file that is not a cell's.
        """
        file = self.root / CELLS / f"{key}.json"
        return read_cell(file) if os.path.lexists(file) else None

    def keys(self) -> frozenset[str]:
        """Of every cell that is there, whatever sweep it is of."""
        return frozenset(file.stem for file in (self.root / CELLS).glob("*.json"))

    def keep(self, cell: Cell, effort: Effort, made_with: Mapping[str, str], finished: Finished) -> Kept:
        """Keeps a cell that ran. Its file comes last, so that a cell with a file has its artifact.

        Raises:
            BadRequest: the folder cannot be written.
        """
        key = key_of(cell, effort, made_with)
        artifact = f"{cell.name}-{key}" if finished.files else None
        kept = Kept(key, cell, effort, artifact, finished.outcome)
        with _writable(self.root):
            if artifact is not None:
                self._put(artifact, finished.files)
        keep_text(self.root / CELLS / f"{key}.json", _json(kept.as_dict()))
        return kept

    def _put(self, name: str, files: Mapping[str, bytes]) -> None:
        """Writes an artifact beside its place, and renames it there."""
        draft, place = self.work / name, self.root / ARTIFACTS / name
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        for file, content in files.items():
            (draft / file).write_bytes(content)
        if place.exists():
            shutil.rmtree(place)
        draft.rename(place)


@contextlib.contextmanager
def sweep_folder(root: Path) -> Iterator[SweepFolder]:
    """Has a sweep's folder for this process alone, and makes it where there is none. The lock ends with the process.

    Raises:
        BadRequest: another process has it, it holds something else, or it cannot be written.
    """
    if os.path.lexists(root) and not root.is_dir():
        raise BadRequest(f"{root} is not a folder. Choose another with -o.")
    with _writable(root):
        root.mkdir(parents=True, exist_ok=True)
        _before(root)
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        if not is_free(descriptor):
            other = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            raise BadRequest(
                f"Another sweep (process {other}) runs into {root}. Wait for it, or choose another folder with -o."
            )
        with _writable(root):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
        yield SweepFolder(root, _before(root))
    finally:
        os.close(descriptor)


def _before(root: Path) -> Before | None:
    """What the folder's sweep was asked.

    Raises:
        BadRequest: it holds what no sweep wrote.
    """
    advice = "Choose another folder with -o."
    if not os.path.lexists(root / SWEEP):
        drafts = {file.name for file in root.glob(DRAFT)}  # of a sweep that was killed at once
        foreign = sorted({entry.name for entry in root.iterdir()} - {LOCK, *drafts})
        if foreign:
            raise BadRequest(f"{root} holds what no sweep wrote ({', '.join(foreign[:5])}). {advice}")
        return None
    top = read_fields(root / SWEEP, advice)
    if top.values.get("kind") != _KIND or top.count("schema_version") != _SCHEMA:
        raise BadRequest(f"{root / SWEEP} is not of a sweep that this release reads. {advice}")
    return Before(top.part("plan").values, top.part("made_with").values)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


@contextlib.contextmanager
def _writable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadRequest(f"{root} cannot be written: {error.strerror or error}. Choose another with -o.") from error
