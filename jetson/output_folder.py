"""The folder of the results: whether it can be written, and what to do where it cannot."""

import errno
import os
from typing import Optional

from .errors import BadRequest

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_CLOSED = frozenset((errno.EROFS, errno.EACCES, errno.EPERM))
_IN_THE_WAY = frozenset((errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EIO))


def check_output(folder: str) -> None:
    """Makes the folder of the results, before anything takes time.

    Raises:
        BadRequest: nothing can be written there.
    """
    probe = os.path.join(folder, ".writable-{}".format(os.getpid()))
    try:
        if not os.path.isdir(folder):
            os.makedirs(folder)
        try:
            with open(probe, "wb") as stream:
                stream.write(b"\0" * 4096)  # a full disk takes an empty file
        finally:
            if os.path.exists(probe):
                os.unlink(probe)
    except OSError as error:
        raise BadRequest(
            "Nothing can be written to {}: {}. {}, or name another folder with --output.".format(
                folder, error.strerror or error, _hint(error)
            )
        ) from error


def cannot_write(error: OSError) -> Optional[str]:
    """What a user reads whose results met this error; None where it says nothing of a folder."""
    if error.errno not in _FULL | _CLOSED | _IN_THE_WAY:
        return None
    where = error.filename or "the folder of the results"
    return "{} cannot be written: {}. {}, or name another folder with --output.".format(
        where, error.strerror, _hint(error)
    )


def _hint(error: OSError) -> str:
    if error.errno in _FULL:
        return "Make room there"
    return "Give permission" if error.errno in _CLOSED else "Take away what is in its place"
