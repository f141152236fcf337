"""The door of the command line: answers what needs no parsing at once, passes on the rest.

Importing the command parser takes longer than `--help` and `list` may, so these
two are answered from here, without it and without the heavy rooms; and so is
`lint MODEL --target TARGET`, which an editor or a hook may run on every change.
"""

from __future__ import annotations

import atexit
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
        if arguments is None and _is_the_program():
            _spare_the_cores(given)
            _leave(_answered(given))
        sys.exit(_answered(given))
    except OSError as error:
        if error.errno not in _FULL:
            raise
        from deploy_attn.answering import forget_stdout

        forget_stdout()
        sys.stderr.write(f"deploy-attn: The answer cannot be written: {error.strerror}.\n")
        sys.exit(1)


def _spare_the_cores(given: tuple[str, ...]) -> None:
    """What a process of our own may set before it loads PyTorch or numpy.

    Threads of theirs wait by running, which takes the cores from what else runs. The
    lint of a small model takes less time than the garbage collector, and has no matrix
    products to start threads for.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if _plain_lint(given) is not None:
        gc.disable()
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _leave(code: int) -> NoReturn:
    """Ends the process without taking the libraries down, which takes PyTorch more than a second."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    atexit._run_exitfuncs()
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
        from deploy_attn.answering import say

        say(quick[given]())
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
