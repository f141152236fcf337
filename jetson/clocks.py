"""GPU and CPU held at their highest clock for as long as a measurement runs, and then as they were.

`jetson_clocks` does it. It ends with 0 whatever happens, asks on its input
before it overwrites a file, and splits the file's name at blanks: so what it
prints is read, it gets no input, and the file is a new one in a folder of ours.
"""

import atexit
import contextlib
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from typing import Any, Callable, Dict, List, Optional

from . import frequencies
from .errors import BadRequest
from .programs import ProgramFailed, find_program, run_program
from .progress import is_free
from .system_files import SystemFiles, Unreadable

_SECONDS = 30.0
_INSTEAD = "Run `sudo jetson_clocks` yourself before and leave --pin-clocks out."
# What ends a run from outside: a service that stops it, and an SSH connection that is lost.
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_DEFERRED = (signal.SIGINT,) + _ENDING


class PinnedClocks:
    """A context manager: clocks pinned inside, as before after it, also on an error, Ctrl-C, SIGTERM and SIGHUP.

    A restore that fails is told, and is `problem` afterwards; it never hides the error that ended the block.

    Args:
        tell: gets what the user has to know now.
        root: the folder that stands for `/`.
        program: path of jetson_clocks; by default where L4T has it.
    """

    def __init__(
        self, tell: Optional[Callable[[str], None]] = None, root: str = "/", program: Optional[str] = None
    ) -> None:
        self.problem: Optional[str] = None
        self._tell = tell or _to_stderr
        self._files = SystemFiles(root)
        self._program = program or find_program("jetson_clocks")
        self._before: Dict[str, int] = {}
        self._stored: Optional[str] = None
        self._is_pinned = False
        self._turn: Any = None
        self._handlers: Dict[int, Any] = {}

    def __enter__(self) -> "PinnedClocks":
        """Raises BadRequest without root or jetson_clocks, where it fails, and where another run holds the clocks."""
        self._check()
        self._take_turn()
        self._before = _lower_limits(self._files)
        atexit.register(self._restore)  # between here and the first line of the block there is no other way out
        self._handlers = _take_over()
        try:
            self._store()
            self._is_pinned = True
            self._pin()
        except BaseException:
            self._finish()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        missed = self._finish()
        if missed and kind is None:
            os.kill(os.getpid(), missed[0])

    def _check(self) -> None:
        if self._program is None:
            raise BadRequest(
                "--pin-clocks was asked for and there is no jetson_clocks here. It comes with L4T, and a container "
                "has none. Run without --pin-clocks, or on the board itself."
            )
        if os.geteuid() != 0:
            raise BadRequest(
                "--pin-clocks was asked for and needs root: jetson_clocks writes to /sys. Run it again with sudo, "
                "or run `sudo jetson_clocks` before and leave --pin-clocks out."
            )

    def _take_turn(self) -> None:
        """Two that pin at once would each restore what the other had set: the second is refused."""
        self._turn = io.open(self._program or "", "rb")  # noqa: SIM115 - closed when the clocks are as before
        if not is_free(self._turn.fileno()):
            self._turn.close()
            raise BadRequest(
                "Another run with --pin-clocks is at work on this board. Wait until it has ended, or end it."
            )

    def _store(self) -> None:
        folder = tempfile.mkdtemp(prefix="deploy-attn-clocks-", dir=_without_blanks(tempfile.gettempdir()))
        self._stored = os.path.join(folder, "clocks.conf")
        failure = self._failure("store the clocks", ["--store", self._stored])
        if failure is None and not (os.path.isfile(self._stored) and os.path.getsize(self._stored)):
            failure = "jetson_clocks stored nothing, so the clocks could not be restored"
        if failure is not None:
            raise BadRequest("--pin-clocks was asked for. {}. None was changed. {}".format(failure, _INSTEAD))
        self._tell(
            "Clocks are pinned until the end of this run. If it is killed: `sudo jetson_clocks --restore {}`, or "
            "reboot.".format(self._stored)
        )

    def _pin(self) -> None:
        failure = self._failure("pin the clocks", [])
        with contextlib.suppress(Unreadable):  # then the warnings say that it is not known
            gpu = frequencies.gpu_frequency(self._files)
            if failure is None and gpu.minimum < gpu.maximum:
                failure = "jetson_clocks says that it pinned the clocks, and the GPU may still fall to {} MHz".format(
                    gpu.minimum // 1000000
                )
        if failure is not None:
            raise BadRequest("--pin-clocks was asked for. {}. {}".format(failure, _INSTEAD))

    def _failure(self, what: str, arguments: List[str]) -> Optional[str]:
        """Runs jetson_clocks; None, or how it failed, without a full stop."""
        command = [self._program or "jetson_clocks"] + arguments
        try:
            done = run_program(command, _SECONDS)
        except ProgramFailed as error:
            return "jetson_clocks could not {}: {}".format(what, error)
        wrong = re.findall(r"^.*\bError\b.*$", done.output, re.MULTILINE)
        if done.code == 0 and not wrong:
            return None
        said = (wrong or done.output.strip().splitlines()[-1:] or ["nothing"])[0].strip()
        return "jetson_clocks could not {}: exit code {}, it said {!r}".format(what, done.code, said[:160])

    def _finish(self) -> List[int]:
        """Restores, and gives the signals back. Those that came meanwhile."""
        try:
            return self._restore()
        finally:
            self._turn.close()
            atexit.unregister(self._restore)
            _give_back(self._handlers)
            self._handlers = {}

    def _restore(self) -> List[int]:
        missed: List[int] = []
        deferred = _defer(missed)
        try:
            if self._is_pinned:
                self._is_pinned = False
                self.problem = self._restored()
            if self.problem is not None:
                self._tell(self.problem)
            elif self._stored is not None:
                shutil.rmtree(os.path.dirname(self._stored), ignore_errors=True)
        finally:
            _give_back(deferred)
        return missed

    def _restored(self) -> Optional[str]:
        """None, or what went wrong and what to do."""
        todo = "Run `sudo jetson_clocks --restore {}`, or reboot.".format(self._stored)
        failure = self._failure("restore the clocks", ["--restore", self._stored or ""])
        if failure is not None:
            return "The clocks may still be pinned. {}. {}".format(failure, todo)
        now = _lower_limits(self._files)
        changed = sorted(name for name in self._before if now.get(name) != self._before[name])
        if changed:
            return "jetson_clocks says that it restored the clocks, but {} may not go as low as before. {}".format(
                ", ".join(changed), todo
            )
        return None


def _lower_limits(files: SystemFiles) -> Dict[str, int]:
    """What pinning raises and restoring has to lower again, in Hz by clock."""
    clocks = frequencies.cpu_frequencies(files)
    with contextlib.suppress(Unreadable):
        clocks.append(frequencies.gpu_frequency(files))
    return {clock.name: clock.minimum for clock in clocks}


def _take_over() -> Dict[int, Any]:
    """Makes the signals that would end Python at once into exceptions; what the caller handles stays as it is."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    taken = [number for number in _ENDING if signal.getsignal(number) == signal.SIG_DFL]
    return {number: signal.signal(number, _leave) for number in taken}


def _leave(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _defer(missed: List[int]) -> Dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, lambda received, frame: missed.append(received)) for number in _DEFERRED}


def _give_back(handlers: Dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _without_blanks(folder: str) -> str:
    return "/tmp" if re.search(r"\s", folder) else folder  # noqa: S108  # jetson_clocks splits it there


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
