"""What a board's run amounts to, and its verdict and log as files beside the artifact."""

from __future__ import annotations

import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploy_attn.jetson.arguments import ENGINES
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.verdict import VERDICT
from deploy_attn.remote.conversation import Ended
from deploy_attn.verdict_file import VerdictFile, read_verdict

_MESSAGE = "run.py: "
_HOLDS, _DOES_NOT_HOLD, _NOT_SERVED = 0, 1, BadRequest.exit_code


@dataclass(frozen=True)
class Outcome:
    """What a run amounts to.

    Attributes:
        exit_code: 0 it holds, 1 it does not, 2 the board could not serve it.
        verdict: the board's, where it is one.
        problem: why the run does not count as passed, unless the verdict itself says it.
    """

    exit_code: int
    verdict: VerdictFile | None
    problem: str | None

    @property
    def engine(self) -> str | None:
        return None if self.verdict is None else self.verdict.engine


def outcome_of(ended: Ended) -> Outcome:
    """Judges a run by its verdict and its exit code, which must agree."""
    verdict, flaw = _verdict(ended)
    code = ended.returncode
    if code < 0:
        return Outcome(_DOES_NOT_HOLD, verdict, _killed(-code, ended))
    if code == _NOT_SERVED:
        return Outcome(_NOT_SERVED, None, f"the runner could not serve it: {_said(ended)}")
    if verdict is None:
        return Outcome(_DOES_NOT_HOLD, None, f"{flaw}; the runner ended with exit code {code}. It said: {_said(ended)}")
    if code not in (_HOLDS, _DOES_NOT_HOLD):
        return Outcome(_DOES_NOT_HOLD, verdict, f"the runner ended with exit code {code}. It said: {_said(ended)}")
    if verdict.passed != (code == _HOLDS):
        said = "passed" if verdict.passed else "failed"
        problem = f"the verdict says {said}, but the runner ended with exit code {code}: one of them is wrong"
        return Outcome(_DOES_NOT_HOLD, verdict, problem)
    return Outcome(code, verdict, None)


def keep_text(folder: Path, name: str, text: str) -> Path:
    """Writes a file of this folder whole, in place of what is there.

    Raises:
        BadRequest: it cannot be written.
    """
    file, draft = folder / name, folder / f".{name}.{os.getpid()}.partial"
    try:
        try:
            draft.write_text(text, encoding="utf-8", errors="replace")
            os.replace(draft, file)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise BadRequest(f"{file} cannot be written: {error.strerror or error}. Choose a folder with -o.") from error
    return file


def _verdict(ended: Ended) -> tuple[VerdictFile | None, str]:
    """The verdict, or why there is none."""
    if ended.verdict is None:
        size = ended.verdict_bytes
        return None, f"{VERDICT} is {size:,} bytes, which no verdict has" if size else f"there is no {VERDICT}"
    with tempfile.TemporaryDirectory(prefix="deploy-attn-") as folder:
        file = Path(folder) / VERDICT
        file.write_text(ended.verdict, encoding="utf-8", errors="replace")
        try:
            found = read_verdict(file)
        except DeployAttnError as error:
            return None, f"what the board wrote is no verdict: {str(error).replace(str(file), VERDICT).rstrip('.')}"
    if found.engine not in ENGINES:  # a part of file names
        return None, f"the board's verdict names an engine that no board has; they have {', '.join(ENGINES)}"
    return found, ""


def _killed(signum: int, ended: Ended) -> str:
    try:
        name = signal.Signals(signum).name
    except ValueError:
        name = f"signal {signum}"
    hint = ""
    if signum == signal.SIGKILL:
        hint = (
            " That is what a system does when memory runs out (`dmesg | tail` on the board says so): close what else "
            "runs there, or add swap."
        )
    return f"the runner was killed by {name} before it ended.{hint} It said: {_said(ended)}"


def _said(ended: Ended) -> str:
    """The runner's own message where it ended with one, else its last lines."""
    lines = [line.strip() for line in ended.last_words]
    message = max((place for place, line in enumerate(lines) if line.startswith(_MESSAGE)), default=len(lines) - 4)
    return " / ".join(filter(None, lines[max(message, 0) :])) or "nothing"
