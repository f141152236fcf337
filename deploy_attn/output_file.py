"""A file that a user asked for: refused before the work where it cannot be meant, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from deploy_attn.engines.whole_file import write_whole
from deploy_attn.jetson.errors import BadRequest


def check_output(file: Path, force: bool, example: str) -> None:
    """Holds a file that is to be written against what is there.

    Args:
        file: where the output is to go.
        force: whether a plain file that is there is replaced.
        example: a name for the message that finds a folder.

    Raises:
        BadRequest: a folder or another thing that is no plain file is there, or a file and no `force`.
    """
    if os.path.isdir(file):  # a name that is too long raises nothing here
        raise BadRequest(f"{file} is a folder. Name a file with -o, as {file / example}.")
    if os.path.lexists(file) and not force:
        raise BadRequest(f"{file} exists already. Choose another file with -o, or replace it with --force.")
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise BadRequest(f"{file} is not a plain file, so --force does not replace it. Choose another with -o.")


def write_output(file: Path, content: bytes, force: bool) -> None:
    """Writes a file, whole or not at all, and the folders that it lies in.

    Args:
        force: whether what is there is replaced, also what came there since `check_output`.

    Raises:
        BadRequest: it cannot be written, or something is there and no `force`.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(file, error) from error
    try:
        write_whole(file, content, replace=force)
    except FileExistsError as error:
        raise BadRequest(
            f"{file} has appeared meanwhile. Choose another file with -o, or replace it with --force."
        ) from error
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> BadRequest:
    return BadRequest(f"{file} cannot be written: {error.strerror or error}. Choose another file with -o.")
