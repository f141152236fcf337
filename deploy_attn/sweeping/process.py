"""A cell in a process of its own: a crash, or memory that runs out, is that cell's outcome and ends nothing else."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy_attn.engines.json_fields import read_fields
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.tensorrt_child import available_memory, signal_name, told_memory
from deploy_attn.sweeping.cell_file import Outcome, outcome_from
from deploy_attn.sweeping.made_with import CODE, made_with
from deploy_attn.sweeping.plan import Cell, Effort

JOB, ANSWER = "job.json", "answer.json"

_SIGKILL = 9
_MOST_WORDS = 400
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
        """Runs one cell to its end, which comes with the caller's at the latest.

        Args:
            job: as `job_of` makes it.
            workspace: a folder for a temporary one.
        """
        began, memory = time.monotonic(), available_memory()
        with tempfile.TemporaryDirectory(prefix="cell-", dir=workspace) as name:
            folder = Path(name)
            (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
            with (folder / "words").open("w+b") as words:
                code = _wait([*(self.program or (sys.executable, "-c", _CHILD)), name, *_import_path()], words)
                words.seek(0)
                said = words.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            outcome = _read(folder / ANSWER) if code == 0 else None
            if outcome is None:
                outcome = failed(_how_it_ended(code, said, memory), time.monotonic() - began)
            return Finished(outcome, _files(folder / str(job["name"])))


def job_of(cell: Cell, effort: Effort) -> dict[str, Any]:
    """A cell as it is sent: JSON values only, so that another version can at least refuse it."""
    return {"cell": cell.as_dict(), "name": cell.name, "effort": effort.as_dict(), "code": made_with()[CODE]}


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


def _wait(command: list[str], words: Any) -> int:
    """The exit code. The child keeps the other end of stdin, whose end tells it that nobody waits any more."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=words, stderr=words)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
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


def _how_it_ended(code: int, said: list[str], memory: int | None) -> str:
    words = "".join(f": {line[:_MOST_WORDS]}" for line in said)
    if code == -_SIGKILL:
        return f"its process was killed (SIGKILL), as the system does when memory runs out.{told_memory(memory)}"
    if code < 0:
        return f"its process crashed ({signal_name(-code)}{words})"
    if code > 0:
        return f"its process ended with exit code {code}{words}"
    return f"its process ended without an answer that can be read{words}"
