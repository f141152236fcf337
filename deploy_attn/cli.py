"""The door of the command line: answers what needs no parsing at once, passes on the rest.

Importing the command parser takes longer than `--help` and `list` may, so these
two are answered from here, without it and without the heavy rooms.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from deploy_attn import __version__
from deploy_attn.overview import overview


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 it holds, 1 it does not, 2 the request cannot be served."""
    given = tuple(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(_answered(given))
    except BrokenPipeError:
        # The reader left (`| head`): nobody is there for the rest, and that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _answered(given: tuple[str, ...]) -> int:
    quick: Mapping[tuple[str, ...], Callable[[], str]] = {
        (): overview,
        ("--help",): overview,
        ("-h",): overview,
        ("--version",): lambda: f"deploy-attn {__version__}",
        ("list",): lambda: _listing(as_json=False),
        ("list", "--json"): lambda: _listing(as_json=True),
    }
    if given in quick:
        print(quick[given](), flush=True)
        return 0
    from deploy_attn.commands import run

    return run(given)


def _listing(as_json: bool) -> str:
    from deploy_attn.listing import catalogue_json, catalogue_table

    return catalogue_json() if as_json else catalogue_table()
