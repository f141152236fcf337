"""Files that are kept in an artifact's folder beside what its manifest vouches for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from deploy_attn.jetson.errors import BadRequest


def check_can_keep(file: Path) -> None:
    """Raises BadRequest where `keep_text` would, before the work that its text takes."""
    try:
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        draft = _draft(file)
        draft.touch()
        draft.unlink()
    except OSError as error:
        raise _unwritable(file, error) from error


def keep_text(file: Path, text: str) -> Path:
    """Writes a file whole, in place of what is there; never through a link to where it points.

    Raises:
        BadRequest: it cannot be written.
    """
    draft = _draft(file)
    try:
        try:
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, file)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(file, error) from error
    return file


def _draft(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}.partial")


def _unwritable(file: Path, error: OSError) -> BadRequest:
    return BadRequest(
        f"{file} cannot be written: {error.strerror or error}. Make room there, or choose a folder that can be written."
    )
