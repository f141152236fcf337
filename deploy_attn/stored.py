"""Files that are kept in an artifact's folder beside what its manifest vouches for."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deploy_attn.engines.folder_lock import locked
from deploy_attn.engines.whole_file import write_whole
from deploy_attn.jetson.errors import BadRequest


def check_can_keep(file: Path) -> None:
    """Raises BadRequest where `keep_text` would, before the work that its text takes."""
    with _writable(file):
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=file.parent):
            pass


def keep_text(file: Path, text: str) -> Path:
    """Writes a file whole, in place of what is there; never through a link to where it points.

    Raises:
        BadRequest: it cannot be written.
    """
    with _writable(file):
        write_whole(file, text.encode("utf-8"), replace=True)
    return file


@contextlib.contextmanager
def changing(file: Path) -> Iterator[None]:
    """Has the folder of a file alone, from reading what is there until something else is kept in its place.

    Raises:
        BadRequest: that folder is not there.
    """
    with contextlib.ExitStack() as held:
        with _writable(file):
            held.enter_context(locked(file.parent, exclusive=True))
        yield


@contextlib.contextmanager
def _writable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadRequest(
            f"{file} cannot be written: {error.strerror or error}. Make room there, or choose a folder that can be "
            "written."
        ) from error
