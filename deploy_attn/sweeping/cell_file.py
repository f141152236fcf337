"""A cell's result: what became of it, kept in a file of its own, and read without trusting it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_attn.engines.json_fields import Fields, read_fields
from deploy_attn.sweeping.plan import Cell, Effort, Module

SCHEMA = 1
REMEDY = "Remove that file, and the sweep runs the cell again."

_OPTIONAL_TEXTS = ("baseline", "claim", "refused")


@dataclass(frozen=True)
class Spread:
    """The paired ratio, above 1 where the artifact is faster than the baseline, and its control's error bar."""

    median: float
    p10: float
    p90: float
    pairs: int
    error: float

    def as_dict(self) -> dict[str, Any]:
        return {"median": self.median, "p10": self.p10, "p90": self.p90, "pairs": self.pairs, "error": self.error}


@dataclass(frozen=True)
class Figures:
    """What `bench` measured of one graph: milliseconds, and against a baseline the ratio and what may be claimed."""

    median_ms: float
    p90_ms: float
    n: int
    baseline: str | None = None
    ratio: Spread | None = None
    claim: str | None = None
    refused: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "median_ms": self.median_ms,
            "p90_ms": self.p90_ms,
            "n": self.n,
            "baseline": self.baseline,
            "ratio": None if self.ratio is None else self.ratio.as_dict(),
            "claim": self.claim,
            "refused": self.refused,
        }


@dataclass(frozen=True)
class Outcome:
    """What came of running a cell.

    Attributes:
        reason: why it failed; empty where it is done.
        holds: the parity verdict of the engine; None where it did not come to one.
        figures: None where it was not measured.
        where: the machine.
        made_with: versions there.
        when: its end, ISO 8601 in UTC.
        seconds: how long it took, waiting for the device included.
    """

    reason: str
    holds: bool | None
    figures: Figures | None
    where: str
    made_with: Mapping[str, str]
    when: str
    seconds: float

    @property
    def done(self) -> bool:
        return not self.reason

    def as_dict(self) -> dict[str, Any]:
        return {
            "status": "done" if self.done else "failed",
            "reason": self.reason,
            "holds": self.holds,
            "figures": None if self.figures is None else self.figures.as_dict(),
            "where": self.where,
            "made_with": dict(self.made_with),
            "when": self.when,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Kept:
    """A cell with its outcome, as its file says; `artifact` is the name of a folder under `artifacts`."""

    key: str
    cell: Cell
    effort: Effort
    artifact: str | None
    outcome: Outcome

    def as_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA,
            "key": self.key,
            "cell": self.cell.as_dict(),
            "effort": self.effort.as_dict(),
            "artifact": self.artifact,
            **self.outcome.as_dict(),
        }


def read_cell(file: Path) -> Kept:
    """Reads a cell's file.

    Raises:
        BadRequest: it is none, or contradicts itself; the message names file and key.
    """
    top = read_fields(file, REMEDY)
    if top.count("schema_version") != SCHEMA:
        top.refuse("schema_version", f"is {{}}, and this release reads {SCHEMA}")
    if top.text("key") != file.stem:
        top.refuse("key", "is {}, and the file has another name")
    artifact = top.text("artifact") if top.has("artifact") else None
    if artifact is not None and Path(artifact).name != artifact:
        top.refuse("artifact", "is {}, and not the name of a folder")
    return Kept(
        top.text("key"), cell_from(top.part("cell")), effort_from(top.part("effort")), artifact, outcome_from(top)
    )


def outcome_from(top: Fields) -> Outcome:
    """The outcome that an object holds.

    Raises:
        BadRequest: it holds none, or one that contradicts itself.
    """
    status, reason = top.text("status"), top.text("reason")
    if status not in ("done", "failed") or (status == "done") == bool(reason):
        top.refuse("status", "is {}, which the reason contradicts")
    outcome = Outcome(
        reason=reason,
        holds=top.flag("holds") if top.has("holds") else None,
        figures=_figures(top.part("figures")) if top.has("figures") else None,
        where=top.text("where"),
        made_with={name: top.part("made_with").text(name) for name in top.part("made_with").values},
        when=top.text("when"),
        seconds=top.number("seconds"),
    )
    if outcome.done and not (outcome.holds and outcome.figures):
        top.refuse("status", "is {}, without a verdict that holds and without figures")
    return outcome


def cell_from(part: Fields) -> Cell:
    """The cell that an object holds."""
    options = part.part("options")
    named = tuple((name, options.text(name)) for name in sorted(options.values))
    return Cell(
        Module(part.text("module"), named),
        part.text("shape"),
        part.text("precision"),
        part.text("engine"),
        part.text("target"),
    )


def effort_from(part: Fields) -> Effort:
    """The effort that an object holds."""
    return Effort(
        part.text("against") if part.has("against") else None,
        part.number("seconds") if part.has("seconds") else None,
    )


def _figures(part: Fields) -> Figures:
    _check_positive(part, ("median_ms", "p90_ms"))
    texts = {key: part.text(key) if part.has(key) else None for key in _OPTIONAL_TEXTS}
    ratio = _spread(part.part("ratio")) if part.has("ratio") else None
    return Figures(part.number("median_ms"), part.number("p90_ms"), part.count("n"), ratio=ratio, **texts)


def _spread(part: Fields) -> Spread:
    _check_positive(part, ("median", "p10", "p90"))
    if not part.number("error") >= 0:
        part.refuse("error", "is {}, and no error bar")
    return Spread(
        part.number("median"), part.number("p10"), part.number("p90"), part.count("pairs"), part.number("error")
    )


def _check_positive(part: Fields, keys: tuple[str, ...]) -> None:
    for key in keys:
        if math.isnan(part.number(key)) or part.number(key) <= 0:
            part.refuse(key, "is {}, and not above 0")
