"""The door of the command line: answers what needs no parsing at once, passes on the rest.

Importing the command parser takes longer than `--help` and `list` may, so these
two are answered from here, without it and without the heavy rooms; and so is
`lint MODEL --target TARGET`, which an editor or a hook may run on every change.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from deploy_attn import __version__
from deploy_attn.overview import overview

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 it holds, 1 it does not, 2 the request cannot be served."""
    given = tuple(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments is None and _plain_lint(given) is not None and _is_the_program():
            _leave_at_once(given)
        sys.exit(_answered(given))
    except BrokenPipeError:
        # The reader left (`| head`): nobody is there for the rest, and that is no error of ours.
        _forget_stdout()
        sys.exit(0)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _forget_stdout()
        sys.stderr.write(f"deploy-attn: The answer cannot be written: {error.strerror}.\n")
        sys.exit(1)


def _forget_stdout() -> None:
    """What is still to be written would fail once more while Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave_at_once(given: tuple[str, ...]) -> NoReturn:
    """Lints in a process of its own, without the garbage collector and without taking the libraries down.

    Both take longer than the lint of a small model, and the process ends anyway. So do
    numpy's threads for matrix products, which wait by running, and have none to do.
    """
    gc.disable()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    code = 0  # nobody is there to read it where the pipe is broken
    with contextlib.suppress(BrokenPipeError):
        code = _answered(given)
        sys.stdout.flush()
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.flush()
    os._exit(code)


def _is_the_program() -> bool:
    """Whether this process was started for this command, and ends with it."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return file is not None and os.path.realpath(file) == os.path.realpath(sys.argv[0])


def _answered(given: tuple[str, ...]) -> int:
    quick: Mapping[tuple[str, ...], Callable[[], str]] = {
        (): overview,
        ("--help",): overview,
        ("-h",): overview,
        ("--version",): lambda: f"deploy-attn {__version__}",
        ("list",): lambda: _listing(targets=False, as_json=False),
        ("list", "--json"): lambda: _listing(targets=False, as_json=True),
        ("list", "--targets"): lambda: _listing(targets=True, as_json=False),
        ("list", "--targets", "--json"): lambda: _listing(targets=True, as_json=True),
    }
    if given in quick:
        print(quick[given](), flush=True)
        return 0
    asked = _plain_lint(given)
    if asked is not None:
        return _linted(asked)
    from deploy_attn.commands import run

    return run(given)


class _Lint(NamedTuple):
    """What `lint` without --fix is asked."""

    model: str
    target: str
    as_json: bool


def _plain_lint(given: tuple[str, ...]) -> _Lint | None:
    """A request to lint, in any order; None for another one, and for what the parser has to judge."""
    if given[:1] != ("lint",):
        return None
    words = list(given[1:])
    targets = [word.partition("=")[2] for word in words if word.startswith("--target=")]
    words = [word for word in words if not word.startswith("--target=")]
    while "--target" in words[:-1]:
        place = words.index("--target")
        targets.append(words[place + 1])
        del words[place : place + 2]
    as_json = "--json" in words
    if as_json:
        words.remove("--json")
    odd = any(word.startswith("-") for word in (*words, *targets))
    return None if odd or len(words) != 1 or len(targets) != 1 else _Lint(words[0], targets[0], as_json)


def _linted(asked: _Lint) -> int:
    from deploy_attn.answering import refuse
    from deploy_attn.lint_text import answer_lint

    try:
        return answer_lint(Path(asked.model), asked.target, asked.as_json)
    except KeyboardInterrupt:
        return refuse("Interrupted.", 128 + signal.SIGINT, asked.as_json)


def _listing(targets: bool, as_json: bool) -> str:
    from deploy_attn.listing import listing

    return listing(targets, as_json)
