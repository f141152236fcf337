"""Moves standard output or the error stream elsewhere for a while, down to the file descriptor.

Compiled code and child processes do not know `sys.stdout`: the exporter's C++
part dumps whole graphs on descriptor 1 where it refuses one, and onnxsim's
prints the stack of every fold that it leaves out on descriptor 2.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_STDOUT, _STDERR = 1, 2


def stdout_to(place: str | int) -> contextlib.AbstractContextManager[None]:
    """Sends what anybody writes to standard output to a file, or to another descriptor."""
    return _moved(_STDOUT, place)


def stderr_to(place: str | int) -> contextlib.AbstractContextManager[None]:
    """Sends what anybody writes to the error stream to a file, or to another descriptor."""
    return _moved(_STDERR, place)


@contextlib.contextmanager
def _moved(stream: int, place: str | int) -> Iterator[None]:
    _flush()
    kept = os.dup(stream)
    sink = os.open(place, os.O_WRONLY) if isinstance(place, str) else os.dup(place)
    os.dup2(sink, stream)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, stream)
        os.close(kept)
        os.close(sink)


def _flush() -> None:
    """Python's buffers, and C's, which would else be written after the descriptor has changed."""
    import ctypes

    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).fflush(None)
