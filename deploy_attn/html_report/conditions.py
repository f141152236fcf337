"""Under which conditions everything on a page was made."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_attn.html_report.blocks import Block, Column, Section, Table, columns
from deploy_attn.html_report.facts import engine_of, flat
from deploy_attn.html_report.subjects import Subject
from deploy_attn.jetson.artifact import SELF_HASH

_MOST_ROWS = 120
_MOST_VALUES = 4
_OF_BOARDS = ("conditions", "board", "builds", "temperatures", "throttling")


def conditions_section(subject: Subject, anchor: str) -> Section:
    return Section("Conditions", f"{anchor}-conditions", tuple(_blocks(subject)))


def _blocks(subject: Subject) -> Iterator[Block]:
    yield Table("The artifact", columns("What", "Value"), tuple(_artifact(subject)))
    heads = columns("Where", "What", "Value")
    rows = tuple(
        (f"{verdict.where}, {engine_of(verdict)}", key, value)
        for verdict in subject.report.verdicts
        for part in _OF_BOARDS
        for key, value in flat({part: verdict.document.get(part) or {}})
    )
    yield from _cut("Of the verdicts", heads, rows)
    found: dict[tuple[str, str], dict[str, None]] = {}
    for one in subject.comparisons:
        sides = {"": one.conditions, "candidate.": one.candidate.conditions, "baseline.": one.baseline.conditions}
        for prefix, values in sides.items():
            for key, value in flat({**values}, prefix):
                found.setdefault((one.engine, key), {})[value] = None
    pairs = tuple((engine, key, _several(list(values))) for (engine, key), values in found.items())
    yield from _cut("Of the measurements", columns("Engine", "What", "Value"), pairs)


def _artifact(subject: Subject) -> Iterator[tuple[str, str]]:
    yield "Folder", str(subject.folder)
    yield "Manifest", str(subject.artifact.manifest[SELF_HASH])
    yield "Inputs", subject.shape
    yield "Target", f"{subject.target}, opset {subject.opset}, IR {subject.ir_version}"
    yield from ((f"Made with {tool}", version) for tool, version in subject.tools)


def _several(values: list[str]) -> str:
    more = f" and {len(values) - _MOST_VALUES} more" if len(values) > _MOST_VALUES else ""
    return " | ".join(values[:_MOST_VALUES]) + more


def _cut(caption: str, heads: tuple[Column, ...], rows: tuple[tuple[str, ...], ...]) -> Iterator[Block]:
    if rows:
        shown = f", {_MOST_ROWS} of {len(rows)}" if len(rows) > _MOST_ROWS else ""
        yield Table(f"{caption}{shown}", heads, rows[:_MOST_ROWS], folded=True)
