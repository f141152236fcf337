"""`remote` for a person: each board's lines while it runs, then a line a board, its verdict first."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.answering import answer
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.plain_text import encodable, plain

if TYPE_CHECKING:
    from pathlib import Path

    from deploy_attn.remote.fleet import HostReport, RemoteReport
    from deploy_attn.remote.options import RemoteOptions

_MARKS, _UNSAVED = ("PASS", "FAIL", "not run"), "unsaved"


def answer_remote(words: list[str], options: RemoteOptions, as_json: bool) -> int:
    """Runs `remote`, prints what came of it, and gives the exit code."""
    from deploy_attn.remote.address import split_words
    from deploy_attn.remote.fleet import run_remote

    codes: list[int] = []

    def job() -> RemoteReport:
        hosts, path = split_words(words)
        report = run_remote(hosts, path, options, show_line)
        codes.append(report.exit_code)
        return report

    code = answer(job, show_remote, as_json)
    return codes[0] if codes else code


def show_line(host: str, line: str) -> None:
    """A board's line on stderr, behind the board's address; a run does not end because nobody reads them."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(encodable(f"[{host}] {plain(line)}\n", sys.stderr.encoding))
            sys.stderr.flush()


def show_remote(report: RemoteReport) -> None:
    """Prints a report; what the terminal's encoding lacks is written as its escape."""
    sys.stdout.write(encodable("\n".join(_lines(report)) + "\n", sys.stdout.encoding))
    sys.stdout.flush()


def _lines(report: RemoteReport) -> Iterator[str]:
    capsule = report.capsule
    size = f"{len(capsule.content) / 1024:.1f} KiB"
    yield f"{plain(capsule.name)} for {capsule.target}, {size}, sha256 {capsule.sha256[:12]}"
    for host in report.hosts:
        yield _host_line(host)
        if host.error is not None:
            yield f"         {plain(host.error)}"
        yield from (f"         {what}: {where}" for what, where in _places(host))
    passed = sum(host.passed for host in report.hosts)
    yield f"{_MARKS[0] if report.passed else _MARKS[1]}  {passed} of {len(report.hosts)} boards passed"


def _host_line(host: HostReport) -> str:
    if host.verdict is None:
        return f"{_MARKS[host.exit_code]:<7}  {host.host}"
    mark = _UNSAVED if host.exit_code == BadRequest.exit_code else f"{_MARKS[host.exit_code]:<7}"
    checks = host.verdict.checks
    held = sum(check.passed for check in checks)
    copied = "copied" if host.copied else "was there"
    engine = host.verdict.engine
    return f"{mark}  {host.host}  {engine}: {held} of {len(checks)} checks hold; {host.seconds:.1f} s, capsule {copied}"


def _places(host: HostReport) -> Iterator[tuple[str, Path | str]]:
    if host.verdict_file is not None:
        yield "verdict", host.verdict_file
    if host.log_file is not None:
        yield "log", host.log_file
    if host.kept is not None:
        yield "left on the board", plain(host.kept)
