"""One measurement at a time on a machine: exports may share it, a measurement has it to itself."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deploy_attn.jetson.errors import DeployAttnError


@contextlib.contextmanager
def device(alone: bool, place: Path | None = None) -> Iterator[None]:
    """Waits until this machine is free for an export, or with `alone` for a measurement, of one user's sweeps.

    What is waited for is a lock on a file, which ends with the process that has it.

    Args:
        alone: nothing else of any sweep runs meanwhile.
        place: the file; None for the one that all sweeps of a user share.

    Raises:
        DeployAttnError: that file is not ours, or cannot be had.
    """
    import fcntl

    file = place or Path(tempfile.gettempdir()) / f"deploy-attn-{os.getuid()}.lock"
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise DeployAttnError(f"{file}, which keeps measurements apart, cannot be opened: {error.strerror}.") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise DeployAttnError(
                f"{file}, which keeps measurements apart, is not a plain file of yours. Remove it, or set TMPDIR to a "
                "folder of your own."
            )
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
