"""Writing a file whole and at once, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

DRAFT = ".deploy-attn-*.partial"

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # of a file system without hard links


def write_whole(place: Path, content: bytes, replace: bool) -> None:
    """Writes a temporary sibling, to the disk, and puts it in place in one step; never through a link.

    A process that is killed leaves at most the hidden sibling.

    Raises:
        FileExistsError: something is there, or came meanwhile, and `replace` is not asked.
        OSError: the file system refuses.
    """
    with _sibling(place, content) as written:
        if replace:
            os.replace(written, place)
        else:
            _put_new(written, place)


def _put_new(written: Path, place: Path) -> None:
    """Gives a file its place; a link, unlike a rename, never replaces what has come there meanwhile."""
    try:
        os.link(written, place)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(written, place)


@contextlib.contextmanager
def _sibling(place: Path, content: bytes) -> Iterator[Path]:
    """A hidden file beside `place` with the mode that a new file gets; gone afterwards, whatever happens."""
    before, after = DRAFT.split("*")
    descriptor, name = tempfile.mkstemp(prefix=before, suffix=after, dir=place.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        yield Path(name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
