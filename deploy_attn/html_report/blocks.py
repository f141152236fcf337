"""What a page is made of, before it is HTML or Markdown. Text in here is not escaped: the writers do that."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from deploy_attn.plain_text import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NONE = "-"  # a cell without a value
PASS, FAIL = "PASS", "FAIL"
_MOST_CHARACTERS = 1000


@dataclass(frozen=True)
class Column:
    """A heading, and what stands below it: a `mark` is PASS or FAIL."""

    title: str
    kind: Literal["text", "number", "mark"] = "text"


@dataclass(frozen=True)
class Table:
    """Rows under columns. A `folded` one is opened by its caption, where the page can fold."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False


@dataclass(frozen=True)
class Text:
    """A sentence or more."""

    text: str


@dataclass(frozen=True)
class Missing:
    """What is not there, and the command that makes it."""

    text: str
    command: str


@dataclass(frozen=True)
class Figure:
    """A plot that is drawn where a page can show it; `description` says in words what it shows.

    Its data stand in a table beside it. `height` is in inches.
    """

    title: str
    description: str
    height: float
    draw: Callable[[Axes], None]


@dataclass(frozen=True)
class Box:
    """A node of a drawn graph, or several that were folded: its place in pixels, what it computes in, and why."""

    label: str
    precision: str
    left: float
    top: float
    details: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """A drawn graph: boxes of one size in pixels, and lines between them as an SVG path."""

    title: str
    boxes: tuple[Box, ...]
    path: str
    width: float
    height: float


Block = Table | Text | Missing | Figure | Drawing


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; sections of an artifact lie one level deeper."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    passed: bool
    summary: str
    sections: tuple[Section, ...]


def printable(text: str) -> str:
    """Text as a page shows it: all that does not print escaped, and cut where nobody would read on."""
    shown = plain(text[:_MOST_CHARACTERS])
    return shown if len(text) <= _MOST_CHARACTERS else f"{shown}..."


def columns(*texts: str, numbers: Sequence[str] = (), mark: str = "") -> tuple[Column, ...]:
    """Columns of text, then of numbers, then one of marks."""
    marks = (Column(mark, "mark"),) if mark else ()
    return (*map(Column, texts), *(Column(title, "number") for title in numbers), *marks)


def number(value: float, digits: int = 3) -> str:
    """A figure for a table, without exponents where it can be read at a glance."""
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:,.{decimals}f}"
    return f"{value:.{digits - 1}e}"
