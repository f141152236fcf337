"""What is said between the host and its program on the board, over one SSH channel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.jetson.errors import BadRequest, first_line
from deploy_attn.remote.on_board import MARK

if TYPE_CHECKING:
    from asyncssh import SSHClientConnection, SSHClientProcess

    from deploy_attn.remote.capsule_file import CapsuleFile

Tell = Callable[[str], None]

# Any Python parses it, and no shell finds anything in it to expand: the program itself comes over standard input.
_BOOTSTRAP = (
    'import sys; sys.exit("deploy-attn: this is Python "+sys.version.split()[0]) if sys.version_info<(3,6) else '
    'eval(compile(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())),"on_board.py","exec"))'
)
_FIRST_ANSWER = 60.0  # seconds
_STOPPING = 30.0  # seconds that the board has to end a runner: longer than its own grace
_ALIVE_EVERY = 10.0
_MOST_RECEIVED = 96 << 20  # bytes; an honest board sends a tenth of it at most
_MOST_WORDS = 4096  # bytes kept of what is not of the protocol, for a message
_LONGEST_LINE, _LAST_WORDS = 2000, 12  # characters of a line, lines kept for a message
_BLOCK = 1 << 16
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_AGAIN = "The board ends what is left of it by itself. Run it again: a capsule that arrived whole is not copied again."


@dataclass(frozen=True)
class RunRequest:
    """What the board is asked to do.

    Attributes:
        folder: on the board, where capsules are kept and run.
        python: the interpreter there.
        arguments: of run.py.
        keep: leave what was unpacked and made.
        timeout: seconds for copy and run together.
    """

    folder: str
    python: str
    arguments: tuple[str, ...]
    keep: bool
    timeout: float


@dataclass(frozen=True)
class Ended:
    """How a run on a board ended.

    Attributes:
        copied: the capsule was not there before.
        returncode: of run.py; negative for a signal.
        verdict, log: the text of verdict.json and of run.log's end; None where there is none, or it is too large.
        kept: the folder on the board that was left, with `keep`.
    """

    copied: bool
    returncode: int
    seconds: float
    verdict: str | None
    verdict_bytes: int
    log: str | None
    log_bytes: int
    kept: str | None
    last_words: tuple[str, ...] = ()


async def run_on_board(connection: SSHClientConnection, capsule: CapsuleFile, request: RunRequest, tell: Tell) -> Ended:
    """Copies a capsule to a board unless it is there, runs it, and waits for it to end.

    Cancelled, it has the board end the runner and waits until it did.

    Raises:
        BadRequest: the board cannot do it, the connection was lost, or nobody answered in time.
    """
    import asyncssh

    command = f"{_quoted(request.python)} -c {shlex.quote(_BOOTSTRAP)}"
    talk = None
    try:
        process = await connection.create_process(command, encoding=None, request_pty=False)
        talk = _Talk(process, capsule, request, tell)
        try:
            return await asyncio.wait_for(talk.held(), request.timeout)
        finally:
            await talk.close()
    except asyncio.TimeoutError as error:
        raise BadRequest(
            f"the run did not end within {request.timeout:g} s, and was ended. Allow more with --timeout."
        ) from error
    except (asyncssh.Error, OSError) as error:
        why = first_line(error)
        raise BadRequest(talk.lost(why) if talk else f"the host opens no session: {why}.") from error


class _Talk:
    """One run's talk; the board's words are taken with care, whoever says them."""

    def __init__(self, process: SSHClientProcess[bytes], capsule: CapsuleFile, request: RunRequest, tell: Tell) -> None:
        self._process, self._capsule, self._request, self._tell = process, capsule, request, tell
        self._buffer, self._received = bytearray(), 0
        self._stray = _Words()
        self._said: deque[str] = deque(maxlen=_LAST_WORDS)
        self._stage = "before the capsule was copied"
        self._tasks = [asyncio.ensure_future(self._listen_to_errors())]

    async def held(self) -> Ended:
        """The whole talk; how the run ended."""
        self._start(self._send(self._opening()))
        try:
            found = _part(await asyncio.wait_for(self._answer(), _FIRST_ANSWER), "found")
        except asyncio.TimeoutError as error:
            raise BadRequest(f"{self._request.python} on the board answered nothing in {_FIRST_ANSWER:g} s.") from error
        there = found.get("there") is True
        if there:
            self._tell("the capsule is there already, and is not copied again")
        else:
            self._tell(f"copying {self._capsule.name}, {_size(len(self._capsule.content))}")
            self._stage = "while the capsule was copied"
            self._start(self._send(self._capsule.content))
        while True:
            message = await self._answer()
            if "line" in message:
                self._heard(str(message["line"]))
            elif "started" in message:
                self._stage = "while the capsule ran"
                self._tell(f"running in Python {str(found.get('python'))[:20]}")
                self._start(self._live())
            elif "ended" in message:
                return replace(_ended(_part(message, "ended")), copied=not there, last_words=tuple(self._said))

    async def close(self) -> None:
        """Ends what is under way on the board, and waits for it."""
        for task in self._tasks[1:]:
            task.cancel()
        with contextlib.suppress(Exception):  # whatever the dead channel throws was told, or is being told
            self._process.stdin.write_eof()
            if not self._is_flooded:
                await asyncio.wait_for(self._drained(), _STOPPING)
        self._tasks[0].cancel()
        self._process.close()

    def _opening(self) -> bytes:
        program = Path(__file__).with_name("on_board.py").read_bytes()
        request = {
            "sha256": self._capsule.sha256,
            "size": len(self._capsule.content),
            "unpacked_bytes": self._capsule.unpacked_bytes,
            "folder": self._request.folder,
            "arguments": list(self._request.arguments),
            "keep": self._request.keep,
        }
        return b"%d\n%s%s\n" % (len(program), program, json.dumps(request).encode("ascii"))

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.ensure_future(job))

    async def _send(self, content: bytes) -> None:
        with contextlib.suppress(OSError, ConnectionError):  # why it does not listen is what it answers
            for start in range(0, len(content), _BLOCK):
                self._process.stdin.write(content[start : start + _BLOCK])
                await self._process.stdin.drain()

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(_ALIVE_EVERY)
            await self._send(b"\n")

    async def _listen_to_errors(self) -> None:
        with contextlib.suppress(Exception):  # the same happens to stdout, where it is told
            while block := await self._process.stderr.read(_BLOCK):
                self._stray.take(block)
                self._received += len(block)
                if self._is_flooded:
                    self._process.close()  # which ends what waits for stdout
                    return

    @property
    def _is_flooded(self) -> bool:
        return self._received > _MOST_RECEIVED

    async def _drained(self) -> None:
        while await self._process.stdout.read(_BLOCK):
            pass
        await self._process.wait_closed()

    def _heard(self, line: str) -> None:
        line = line[:_LONGEST_LINE]
        self._said.append(line)
        self._tell(line)

    async def _answer(self) -> Mapping[str, Any]:
        """The next thing that the board's program says."""
        while True:
            line = await self._line()
            if not line.startswith(MARK.encode("ascii")):
                self._stray.take(line)  # what a login shell prints
                continue
            try:
                message = json.loads(line[len(MARK) :].decode("utf-8", "replace"))
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                raise BadRequest("the host answers what its program on the board never says; is it the right host?")
            if "refused" in message:
                raise BadRequest(str(message["refused"])[:_LONGEST_LINE])
            return message

    async def _line(self) -> bytes:
        looked = 0
        while (end := self._buffer.find(b"\n", looked)) < 0:
            looked = len(self._buffer)
            block = await self._process.stdout.read(_BLOCK)
            self._received += len(block)
            if self._is_flooded:
                raise BadRequest(f"the host sent more than {_size(_MOST_RECEIVED)}, far beyond a run's answer.")
            if not block:
                raise await self._silence()
            self._buffer += block
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line

    async def _silence(self) -> BadRequest:
        """Why the board's program says no more."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._tasks[0]), 2)
            await asyncio.wait_for(self._process.wait_closed(), 2)
        status, ended_by, words = self._process.exit_status, self._process.exit_signal, self._stray.text
        python, remedy = self._request.python, "Install one (`sudo apt install python3`), or name one with --python."
        if status == _NOT_FOUND:
            return BadRequest(f"{python} is not there on the board. {remedy}")
        if status == _NOT_EXECUTABLE:
            return BadRequest(f"{python} cannot be started on the board: {words or 'permission denied'}. {remedy}")
        if "deploy-attn: this is Python " in words:
            return BadRequest(
                f"{python} is {words.rpartition('this is ')[2]} on the board; it takes 3.6 or newer. {remedy}"
            )
        if ended_by is not None:
            name = str(ended_by[0])
            return BadRequest(f"the program on the board was killed (SIG{name}) {self._stage}. {_AGAIN}")
        if status is None or status < 0:
            return BadRequest(self.lost(""))
        return BadRequest(
            f"the host ended the talk with exit code {status} {self._stage}. It said: {words or 'nothing'}"
        )

    def lost(self, why: str) -> str:
        """What to tell of a connection that broke."""
        reason = f" ({why})" if why else ""
        return f"the connection was lost {self._stage}{reason}. {_AGAIN}"


class _Words:
    """The end of what was said, as far as it is worth keeping for a message."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def take(self, block: bytes) -> None:
        self._bytes += block
        if len(self._bytes) > 2 * _MOST_WORDS:
            del self._bytes[:-_MOST_WORDS]

    @property
    def text(self) -> str:
        """The last lines, as one."""
        lines = self._bytes[-_MOST_WORDS:].decode("utf-8", "replace").split("\n")
        return "; ".join(filter(None, (line.strip().rstrip(".") for line in lines[-_LAST_WORDS:])))


def _quoted(python: str) -> str:
    """The interpreter for the board's shell, which may find the home folder and nothing else in it."""
    return f"~/{shlex.quote(python[2:])}" if python.startswith("~/") else shlex.quote(python)


def _part(message: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = message.get(name)
    if not isinstance(part, dict):
        raise BadRequest(f"the host's answer lacks {name!r}, which its program on the board always says.")
    return part


def _ended(said: Mapping[str, Any]) -> Ended:
    """The last answer, with every type checked."""
    kinds: Mapping[str, tuple[type, ...]] = {
        "returncode": (int,),
        "seconds": (int, float),
        "verdict": (str, type(None)),
        "verdict_bytes": (int,),
        "log": (str, type(None)),
        "log_bytes": (int,),
        "kept": (str, type(None)),
    }
    for name, wanted in kinds.items():
        if name not in said or type(said[name]) not in wanted:
            raise BadRequest(f"the host's last answer has no proper {name!r}, which its program always says.")
    return Ended(copied=False, **{name: said[name] for name in kinds})


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / (1 << 10):.1f} KiB"
