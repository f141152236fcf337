"""Moves standard output elsewhere for a while, down to the file descriptor.

Compiled code and child processes do not know `sys.stdout`: the exporter's C++
part dumps whole graphs on descriptor 1 where it refuses one.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_STDOUT = 1


@contextlib.contextmanager
def stdout_to(place: str | int) -> Iterator[None]:
    """Sends what anybody writes to standard output to a file, or to another descriptor."""
    _flush()
    kept = os.dup(_STDOUT)
    sink = os.open(place, os.O_WRONLY) if isinstance(place, str) else os.dup(place)
    os.dup2(sink, _STDOUT)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, _STDOUT)
        os.close(kept)
        os.close(sink)


def _flush() -> None:
    """Python's buffer, and C's, which would else be written after the descriptor has changed."""
    import ctypes

    sys.stdout.flush()
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).fflush(None)
