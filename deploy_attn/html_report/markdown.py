"""A page as Markdown: its text and tables, without plots, whose data the tables hold."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deploy_attn.html_report.blocks import Block, Drawing, Figure, Missing, Page, Section, Table, Text, printable

# What Markdown, or HTML and links inside it, could take for more than text; some of it only where a line begins.
_SPECIAL = re.compile(r"([\\`*_\[\]<|~&$]|^[-+#>=]|:(?=//)|(?<=www)\.)", re.IGNORECASE)


def markdown_of(page: Page) -> str:
    lines = [f"# {escaped(page.title)}", "", f"**{'PASS' if page.passed else 'FAIL'}** {escaped(page.summary)}", ""]
    for section in page.sections:
        lines += _section(section, 2)
    return "\n".join(lines).rstrip() + "\n"


def escaped(text: str) -> str:
    """Text of one line that reads as it stands, whoever wrote it."""
    return _SPECIAL.sub(r"\\\1", printable(text))


def _section(section: Section, level: int) -> Iterator[str]:
    yield from (f"{'#' * level} {escaped(section.title)}", "")
    for block in section.blocks:
        yield from _block(block)
    for part in section.sections:
        yield from _section(part, level + 1)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Figure | Drawing):
        return
    if isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Missing):
        yield from (f"{escaped(block.text)} {_code(block.command)}", "")
    elif isinstance(block, Text):
        yield from (escaped(block.text), "")


def _table(table: Table) -> Iterator[str]:
    yield from (f"**{escaped(table.caption)}**", "")
    yield _row([escaped(column.title) for column in table.columns])
    yield _row(["---:" if column.kind == "number" else "---" for column in table.columns])
    for row in table.rows:
        yield _row([escaped(cell) for cell in row])
    yield ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    """A command as code, between more backticks than it has in a row."""
    shown = printable(text)
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{shown}{space}{fence}"
