"""The checks of a verdict as rows of a table; one form for a host's and a board's."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from deploy_attn.plain_text import encodable, plain

if TYPE_CHECKING:
    from deploy_attn.jetson.parity import Check

# Each heading with the side that its cells keep to.
CHECK_COLUMNS: Mapping[str, Literal["left", "right"]] = MappingProxyType(
    {
        "graph": "left",
        "bracket": "left",
        "case": "left",
        "output": "left",
        "RMS relative": "right",
        "allowed": "right",
        "max abs": "right",
        "cosine": "right",
    }
)


def check_cells(check: Check) -> tuple[str, ...]:
    """A cell for each of CHECK_COLUMNS."""
    if check.comparison is None:
        measured = ("-", "-", "-")
    else:
        found = check.comparison
        measured = (f"{found.rms_relative:.1e}", f"{found.max_abs:.1e}", f"{found.cosine:.7f}")
    names = (check.graph, check.bracket, check.case, check.output)
    allowed = f"{check.tolerance.rms_relative:.0e}"
    return (*map(cell, names), measured[0], allowed, *measured[1:])


def mark_of(passed: bool) -> str:
    """The closing cell of a check's row."""
    return "[green]ok[/green]" if passed else "[red]FAIL[/red]"


def cell(text: str) -> str:
    """Text of a file for a table: no markup, no command to the terminal, nothing that stdout's encoding lacks."""
    from rich.markup import escape

    return escape(encodable(plain(text), sys.stdout.encoding))
