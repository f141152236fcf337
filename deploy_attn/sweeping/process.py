"""A cell in a process of its own: a crash, or memory that runs out, is that cell's outcome and ends nothing else."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy_attn.engines.json_fields import read_fields
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.tensorrt_child import available_memory, signal_name, told_memory
from deploy_attn.sweeping.cell_file import Outcome, outcome_from
from deploy_attn.sweeping.made_with import CODE, made_with
from deploy_attn.sweeping.plan import Cell, Effort

JOB, ANSWER = "job.json", "answer.json"
LIMIT_S = 1800.0

_MOST_WORDS = 400
_END_S = 10.0  # for which a process that was killed is waited: in a driver it may stay
# OpenMP's threads wait by running, unless this is set before PyTorch is loaded.
_ENVIRONMENT = MappingProxyType({"OMP_WAIT_POLICY": "PASSIVE"})
_CHILD = """
import sys
sys.path[:] = sys.argv[2:]
from deploy_attn.sweeping.child import main
main(sys.argv[1])
"""


@dataclass(frozen=True)
class Finished:
    """A cell that ran: its outcome, and the files of its artifact by name."""

    outcome: Outcome
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class CellProcess:
    """Runs cells, each in a new process.

    Attributes:
        program: what is started; it finds the path of a folder with the job behind it. None for deploy-attn's own.
    """

    program: tuple[str, ...] | None = None

    def run(self, job: Mapping[str, Any], workspace: Path) -> Finished:
        """Runs one cell to its end, which comes with its limit or the caller's end at the latest.

        Args:
            job: as `job_of` makes it.
            workspace: a folder for a temporary one.

        Raises:
            OSError: there is no room for it, or no process to be had.
        """
        began, memory, limit = time.monotonic(), available_memory(), float(job["limit"])
        with tempfile.TemporaryDirectory(prefix="cell-", dir=workspace) as name:
            folder = Path(name)
            (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
            with (folder / "words").open("w+b") as words:
                command = [*(self.program or (sys.executable, "-c", _CHILD)), name, *_import_path()]
                code = _wait(command, words, limit)
                words.seek(0)
                said = words.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            outcome = _read(folder / ANSWER) if code == 0 else None
            if outcome is None:
                reason = _too_long(limit, said) if code is None else _how_it_ended(code, said, memory)
                outcome = failed(reason, time.monotonic() - began)
            return Finished(outcome, _files(folder / str(job["name"])))


def job_of(cell: Cell, effort: Effort, limit: float = LIMIT_S) -> dict[str, Any]:
    """A cell as it is sent: JSON values only, so that another version can at least refuse it.

    Args:
        cell: what is measured.
        effort: how.
        limit: seconds after which its process is ended.
    """
    return {
        "cell": cell.as_dict(),
        "name": cell.name,
        "effort": effort.as_dict(),
        "limit": limit,
        "code": made_with()[CODE],
    }


def failed(reason: str, seconds: float) -> Outcome:
    """Of a cell that came to nothing, at this time and place."""
    return Outcome(
        reason=reason,
        holds=None,
        figures=None,
        where=platform.node() or "unnamed",
        made_with=made_with(),
        when=utc_now(),
        seconds=round(seconds, 3),
    )


def utc_now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _import_path() -> list[str]:
    """The child starts elsewhere, and "" means where it starts."""
    return [str(Path(entry).absolute()) for entry in sys.path]


def _wait(command: list[str], words: Any, limit: float) -> int | None:
    """The exit code; None if the process did not end in so many seconds. What it started ends with it.

    It keeps the other end of stdin, whose end tells it that nobody waits any more.
    """
    environment = {**_ENVIRONMENT, **os.environ}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=words, stderr=words, env=environment, start_new_session=True
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(OSError):  # nothing is left of its group
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        if process.stdin is not None:
            process.stdin.close()


def _read(answer: Path) -> Outcome | None:
    """What the child wrote; None where that is nothing, or no outcome."""
    try:
        return outcome_from(read_fields(answer, ""))
    except BadRequest:
        return None


def _files(artifact: Path) -> dict[str, bytes]:
    """An artifact is flat; what was being written when the child ended is hidden or in a folder."""
    if not artifact.is_dir():
        return {}
    plain = (file for file in artifact.iterdir() if file.is_file() and not file.is_symlink())
    return {file.name: file.read_bytes() for file in plain if not file.name.startswith(".")}


def _too_long(limit: float, said: list[str]) -> str:
    return (
        f"its process did not end within {limit:g} s, the limit for a cell, and was killed{_words(said)}. If it needs "
        "longer, sweep again with --retry-failed and a larger --cell-limit."
    )


def _how_it_ended(code: int, said: list[str], memory: int | None) -> str:
    words = _words(said)
    if code == -signal.SIGKILL:
        return f"its process was killed (SIGKILL), as the system does when memory runs out.{told_memory(memory)}"
    if code < 0:
        return f"its process crashed ({signal_name(-code)}{words})"
    if code > 0:
        return f"its process ended with exit code {code}{words}"
    return f"its process ended without an answer that can be read{words}"


def _words(said: list[str]) -> str:
    return "".join(f": {line[:_MOST_WORDS]}" for line in said)
