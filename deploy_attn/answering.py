"""How a command answers: its report for a person or as one JSON document, or why there is none.

Neither the command parser nor rich is loaded from here.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from deploy_attn.jetson.errors import DeployAttnError

_STDERR = 2


class Report(Protocol):
    """What a command's public function returns."""

    @property
    def passed(self) -> bool: ...

    def as_dict(self) -> dict[str, Any]: ...


AReport = TypeVar("AReport", bound=Report)


def answer(job: Callable[[], AReport], show: Callable[[AReport], None], as_json: bool) -> int:
    """Runs a job and prints its report, or why there is none; the exit code that its verdict means.

    Args:
        job: the work; a DeployAttnError of it becomes a message.
        show: prints the report for a person; not called for a document.
        as_json: whether one JSON document is wanted on stdout.
    """
    try:
        with _stdout_kept_clean(as_json):
            report = job()
    except DeployAttnError as error:
        return refuse(str(error), error.exit_code, as_json)
    except MemoryError as error:
        return refuse(f"Not enough memory: {error}. Choose a smaller --shape, or a smaller model.", 2, as_json)
    if as_json:
        say(json.dumps(report.as_dict(), indent=2, allow_nan=False))
    else:
        with _to_whoever_reads():
            show(report)
    return 0 if report.passed else 1


def refuse(message: str, exit_code: int, as_json: bool) -> int:
    """Says why on stderr, and on stdout as the document that --json promises."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"deploy-attn: {message}\n")
    if as_json:
        say(json.dumps({"passed": False, "error": message, "exit_code": exit_code}, indent=2))
    return exit_code


def say(text: str) -> None:
    """Prints a text on stdout."""
    with _to_whoever_reads():
        sys.stdout.write(f"{text}\n")


@contextlib.contextmanager
def _to_whoever_reads() -> Iterator[None]:
    """A reader may leave before the end (`| head`); the exit code stays the one of the verdict."""
    try:
        yield
        sys.stdout.flush()  # a reader that has left shows here, and not while Python ends
    except BrokenPipeError:
        forget_stdout()
    except SystemExit as leaving:  # rich's answer to a reader that has left
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        forget_stdout()


def forget_stdout() -> None:
    """What is still to be written would fail once more while Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _stdout_kept_clean(as_json: bool) -> Iterator[None]:
    """With --json, what a user's own network prints, from C or a child process too, goes to stderr."""
    if not as_json:
        yield
        return
    from deploy_attn.export.stdout import stdout_to

    with contextlib.redirect_stdout(sys.stderr), stdout_to(_STDERR):
        yield
