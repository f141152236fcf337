"""What a run says while it works: lines on stderr, and the same with more in run.log; stdout is kept for the result."""

import contextlib
import fcntl
import io
import os
import signal
import sys
import time
from types import TracebackType
from typing import Any, Iterator, Mapping, Optional, Type

from .errors import BadRequest

LOG = "run.log"

_STDOUT, _STDERR = 1, 2
_ENDING = ("SIGTERM", "SIGHUP")  # a polite kill, and a connection that went away


class Stopped(BaseException):
    """A signal asked the run to end; what it began is undone on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__("ended by {}".format(signal.Signals(number).name))
        self.exit_code = 128 + number


class Log:
    """Says what happens, with the seconds since the start: a context manager over run.log in a folder.

    Raises:
        BadRequest: another run writes to it.
    """

    def __init__(self, folder: str) -> None:
        path = os.path.join(folder, LOG)
        self._file = io.open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - closed at the end
        if not is_free(self._file.fileno()):
            self._file.close()
            raise BadRequest(
                "Another run is at work in {}, and two at once would spoil each other's times. Wait until it has "
                "ended, or end it.".format(folder)
            )
        self._file.truncate(0)
        self._started = time.monotonic()

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        with contextlib.suppress(OSError):  # a full disk at the very end
            self._file.close()

    def say(self, text: str) -> None:
        """A line for the person who waits, and for the log."""
        line = "[{:6.1f} s] {}".format(time.monotonic() - self._started, text)
        write_line(sys.stderr, line)
        self.keep(line)

    def keep(self, text: str) -> None:
        """A line for the log alone. A log that cannot be written ends no run."""
        with contextlib.suppress(OSError, ValueError):
            self._file.write(text + "\n")
            self._file.flush()

    def build_step(self, step: Mapping[str, Any]) -> None:
        """The builder's progress: a line when a phase begins, the rest in the log."""
        line = "building: {} {}/{}".format(step["phase"], step["step"], step["steps"])
        if step["step"] == 0:
            self.say(line)
        else:
            self.keep(line)


def is_free(descriptor: int) -> bool:
    """Takes an open file for this process until it ends or closes it; whether no other process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def write_line(stream: Any, line: str) -> None:
    """A line on a stream whose encoding may be ASCII, as Python 3.6's is in a bare locale."""
    if stream is None:  # it was closed before Python began
        return
    encoding = getattr(stream, "encoding", None) or "ascii"
    try:
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except (OSError, ValueError):  # the reader left, or there is no stream
        _abandon(stream)


def _abandon(stream: Any) -> None:
    """What it still holds goes nowhere: Python would try again at its end, fail, and make the exit code 120."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def stdout_kept() -> Iterator[Any]:
    """A stream to the real stdout, while what native code prints there goes to stderr."""
    if sys.stdout is None:  # it was closed before Python began, and so nothing can be mixed
        yield None
        return
    sys.stdout.flush()
    there = os.dup(_STDOUT)
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    kept = io.open(there, "w", encoding=encoding, errors="backslashreplace")  # noqa: SIM115 - closed below
    try:
        with contextlib.suppress(OSError):
            os.dup2(_STDERR, _STDOUT)
        yield kept
    finally:
        with contextlib.suppress(OSError, ValueError):
            kept.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os.dup2(there, _STDOUT)
        with contextlib.suppress(OSError, ValueError):
            kept.close()


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Inside, a signal to end raises `Stopped`, so that children end and clocks go back."""

    def leave(number: int, frame: Any) -> None:
        raise Stopped(number)

    before = {}
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as nohup asks for
            before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
