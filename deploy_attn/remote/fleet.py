"""One capsule on several boards at once: what one of them does stops no other."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.remote.address import Address
from deploy_attn.remote.capsule_file import CapsuleFile, capsule_file
from deploy_attn.remote.connection import check_installed, connected
from deploy_attn.remote.conversation import Ended, RunRequest, run_on_board
from deploy_attn.remote.options import RemoteOptions
from deploy_attn.remote.outcome import Outcome, keep_text, outcome_of
from deploy_attn.verdict_file import VerdictFile

# A board's address and a line of what it does.
OnLine = Callable[[str, str], None]


@dataclass(frozen=True)
class HostReport:
    """What came of one board.

    Attributes:
        exit_code: 0 it holds there, 1 it does not, 2 the board could not serve it.
        error: why it is not 0, where the verdict does not say it.
        copied: the capsule was copied, and was not there before.
        verdict_file, log_file: what was brought back.
        kept: the folder on the board that was left, with `keep`.
    """

    host: str
    exit_code: int
    error: str | None = None
    copied: bool = False
    seconds: float = 0.0
    verdict: VerdictFile | None = field(default=None, repr=False)
    verdict_file: Path | None = None
    log_file: Path | None = None
    kept: str | None = None

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "passed": self.passed,
            "exit_code": self.exit_code,
            "error": self.error,
            "copied": self.copied,
            "seconds": round(self.seconds, 3),
            "verdict_file": None if self.verdict_file is None else str(self.verdict_file),
            "log_file": None if self.log_file is None else str(self.log_file),
            "kept": self.kept,
            "verdict": None if self.verdict is None else dict(self.verdict.document),
        }


@dataclass(frozen=True)
class RemoteReport:
    """What came of all boards, in the order in which they were named."""

    capsule: CapsuleFile
    hosts: tuple[HostReport, ...]

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """0 where every board passed. Else 1 where one does not hold, whatever became of the others; else 2."""
        codes = {host.exit_code for host in self.hosts}
        return next((code for code in (1, 2) if code in codes), 0)

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "exit_code": self.exit_code,
            "capsule": self.capsule.name,
            "capsule_bytes": len(self.capsule.content),
            "capsule_sha256": self.capsule.sha256,
            "target": self.capsule.target,
            "hosts": [host.as_dict() for host in self.hosts],
        }


def run_remote(
    hosts: Sequence[Address],
    path: str | Path,
    options: RemoteOptions | None = None,
    on_line: OnLine | None = None,
) -> RemoteReport:
    """Runs an artifact's capsule on boards over SSH, all at once, and brings their verdicts back.

    Host keys are checked against known_hosts, and logins take keys and ssh-agent only.

    Args:
        hosts: the boards.
        path: an artifact's folder, or a capsule that `bundle` wrote.
        options: what to run, and where.
        on_line: called with a board's address and each line of what it does.

    Raises:
        BadRequest: asyncssh is not installed, what was named cannot be run
            anywhere, or the verdicts could not be written. What goes wrong with one
            board is in its report instead.
        DamagedArtifact, DeployAttnError: as `bundle` does.
        KeyboardInterrupt: interrupted; the runners on the boards were ended.
    """
    options = options or RemoteOptions()
    options.check()
    check_installed()
    folder = _output_folder(Path(path), options)
    capsule = capsule_file(Path(path), options.target)

    async def everywhere() -> tuple[HostReport, ...]:
        jobs = [_on_one(host, capsule, options, folder, on_line or _silent) for host in hosts]
        return tuple(await asyncio.gather(*jobs))

    return RemoteReport(capsule, _interruptible(everywhere))


async def _on_one(
    address: Address, capsule: CapsuleFile, options: RemoteOptions, folder: Path, on_line: OnLine
) -> HostReport:
    """One board's run. Whatever goes wrong is its report, so that the others go on."""
    name = str(address)
    request = RunRequest(options.remote_folder, options.python, options.arguments, options.keep, options.timeout)
    try:
        async with connected(address) as connection:
            ended = await run_on_board(connection, capsule, request, lambda line: on_line(name, line))
        return _kept(address, ended, outcome_of(ended), folder, options)
    except DeployAttnError as error:
        return HostReport(name, error.exit_code, str(error))
    except Exception as error:  # a bug over one board is no reason to leave the others
        return HostReport(name, 1, f"unexpected {type(error).__name__}: {error}. That is a bug of deploy-attn.")


def _kept(address: Address, ended: Ended, outcome: Outcome, folder: Path, options: RemoteOptions) -> HostReport:
    """Writes what came back beside the artifact. A verdict that cannot be kept is told all the same."""
    end = f"{address.label}-{outcome.engine or options.engine or 'no-engine'}"
    exit_code, problem = outcome.exit_code, outcome.problem
    verdict_file = log_file = None
    try:
        if outcome.verdict is not None and ended.verdict is not None:
            verdict_file = keep_text(folder, f"verdict-{end}.json", ended.verdict)
        if ended.log is not None:
            log_file = keep_text(folder, f"run-{end}.log", ended.log)
    except DeployAttnError as error:
        exit_code, problem = exit_code or error.exit_code, " ".join(filter(None, (problem, str(error))))
    return HostReport(
        host=str(address),
        exit_code=exit_code,
        error=problem,
        copied=ended.copied,
        seconds=ended.seconds,
        verdict=outcome.verdict,
        verdict_file=verdict_file,
        log_file=log_file,
        kept=ended.kept,
    )


def _output_folder(path: Path, options: RemoteOptions) -> Path:
    folder = options.output or (path if path.is_dir() else path.absolute().parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRequest(f"{folder} cannot be made: {error.strerror or error}. Choose another with -o.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadRequest(f"{folder} cannot be written, and verdicts go there. Choose another folder with -o.")
    return folder


def _interruptible(work: Callable[[], Coroutine[Any, Any, tuple[HostReport, ...]]]) -> tuple[HostReport, ...]:
    """Runs to the end, or until Ctrl-C or a polite kill, which let each board end its runner first."""
    stopped: list[int] = []

    async def watched() -> tuple[HostReport, ...]:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work())

        def stop(signum: int) -> None:
            stopped.append(signum)
            task.cancel()

        here = threading.current_thread() is threading.main_thread()
        before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM) if here}
        for signum in before:
            loop.add_signal_handler(signum, stop, signum)
        try:
            return await task
        finally:
            for signum, handler in before.items():
                loop.remove_signal_handler(signum)
                signal.signal(signum, handler)

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        if stopped and stopped[0] == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise KeyboardInterrupt from None


def _silent(host: str, line: str) -> None:
    """Nobody listens."""
