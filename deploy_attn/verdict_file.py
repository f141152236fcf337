"""A verdict as `verify` or a capsule's run.py wrote it, read without trusting it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from deploy_attn.engines.json_fields import Fields, read_fields
from deploy_attn.jetson.metrics import Comparison
from deploy_attn.jetson.parity import PRECISIONS, Check, Tolerance

ARTIFACT_SHA256 = "artifact_sha256"  # in the conditions: the own hash of the manifest that was verified

_SCHEMA = 1
_MOST_CHECKS = 2000
_UNKNOWN = "an unknown machine"
_REMEDY = "A verdict is what `deploy-attn verify` or a capsule's run.py writes; make it there again."

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Times:
    """How long one inference took in one run, in milliseconds.

    `n` samples, each the mean of `loop` inferences in a row, for what is too short to be timed alone.
    """

    median: float
    p90: float
    p99: float
    n: int
    loop: int


@dataclass(frozen=True)
class Timing:
    """Times of one precision: of the graph alone, and with its inputs and outputs moved; None where not measured."""

    compute: Times | None
    end_to_end: Times | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Energy:
    """Joules of one inference in one run, from `n` samples of the power; without them, why not."""

    joules: float | None
    n: int
    refused: str


@dataclass(frozen=True)
class VerdictFile:
    """One verdict, with timing and energy by precision where the run has them.

    `where` is the board's module, the GPU, or the kind of machine. `passed` is what the run
    itself said, and no check or problem contradicts; `document` is all that its file holds.
    """

    file: Path
    engine: str
    version: str
    where: str
    passed: bool
    checks: tuple[Check, ...]
    artifact_sha256: str | None
    timing: Mapping[str, Timing]
    energy: Mapping[str, Energy]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]
    document: Mapping[str, Any]


def read_verdict(file: Path) -> VerdictFile:
    """Reads a verdict of the host or of a board.

    Raises:
        BadRequest: not one, or one that contradicts itself; the message names file and key.
    """
    top = read_fields(file, _REMEDY)
    if "schema_version" in top.values and top.count("schema_version") != _SCHEMA:
        top.refuse("schema_version", f"is {{}}, and this release reads {_SCHEMA}")
    engine, stated, conditions = top.text("engine"), top.flag("passed"), top.part("conditions")
    parts = top.parts("checks")
    if len(parts) > _MOST_CHECKS:
        top.refuse("checks", f"is {{}} checks, and no verdict has more than {_MOST_CHECKS}")
    checks = tuple(_check(part) for part in parts)
    problems = top.texts("problems")
    if stated and (problems or not checks or not all(check.passed for check in checks)):
        top.refuse("passed", "is {}, which its own checks or problems contradict")
    return VerdictFile(
        file=file,
        engine=engine,
        version=conditions.text("version") if conditions.has("version") else "",
        where=_where(top, conditions),
        passed=stated,
        checks=checks,
        artifact_sha256=conditions.text(ARTIFACT_SHA256) if conditions.has(ARTIFACT_SHA256) else None,
        timing=_by_precision(top, "timing", _timing),
        energy=_by_precision(top, "power", _energy),
        warnings=top.texts("warnings"),
        problems=problems,
        document=top.values,
    )


def _check(part: Fields) -> Check:
    """One check; that it passed is told by its numbers, never by its word alone."""
    precision = part.text("precision")
    if precision not in PRECISIONS:
        part.refuse("precision", f"is {{}}, and not {' or '.join(PRECISIONS)}")
    check = Check(
        graph=part.text("graph"),
        precision=precision,
        bracket=part.text("bracket"),
        case=part.text("case"),
        output=part.text("output"),
        comparison=_comparison(part.part("measured")) if part.has("measured") else None,
        tolerance=_tolerance(part.part("tolerance")),
        error=part.text("error") if part.has("error") else None,
        compared=part.text("compared") if part.has("compared") else None,
    )
    if check.comparison is None and check.error is None:
        part.refuse("error", "is {}, and there is nothing measured either")
    if part.flag("passed") and not check.passed:
        part.refuse("passed", "is {}, which its own numbers contradict")
    return check


def _comparison(part: Fields) -> Comparison:
    for key in ("max_abs", "rms_relative", "worst_relative"):
        if part.number(key) < 0:
            part.refuse(key, "is {}, and no error can be less than 0")
    return Comparison(
        max_abs=part.number("max_abs"),
        rms_relative=part.number("rms_relative"),
        cosine=part.number("cosine"),
        worst_relative=part.number("worst_relative"),
        worst_index=part.counts("worst_index"),
        worst_expected=part.number("worst_expected"),
        worst_actual=part.number("worst_actual"),
        non_finite=part.count("non_finite"),
    )


def _tolerance(part: Fields) -> Tolerance:
    for key in ("rms_relative", "worst_relative"):
        if not 0 < part.number(key) < 1:
            part.refuse(key, "is {}, and no tolerance")
    return Tolerance(part.number("rms_relative"), part.number("worst_relative"), part.text("reason"))


def _where(top: Fields, conditions: Fields) -> str:
    """The board's module, else the machine's own name, else its GPU, else what kind of machine it is."""
    if top.has("board") and top.part("board").has("module"):
        return top.part("board").text("module")
    if conditions.has("host"):
        return conditions.text("host")
    if isinstance(conditions.values.get("device"), dict) and conditions.part("device").has("name"):
        return conditions.part("device").text("name")
    parts = [conditions.text(key) for key in ("system", "machine") if conditions.has(key)]
    return " ".join(parts) or _UNKNOWN


def _by_precision(top: Fields, key: str, read: Callable[[Fields], _Read]) -> dict[str, _Read]:
    if not top.has(key):
        return {}
    part = top.part(key)
    return {precision: read(part.part(precision)) for precision in part.values}


def _timing(part: Fields) -> Timing:
    compute, end_to_end = (_times(part.part(key)) if part.has(key) else None for key in ("compute", "end_to_end"))
    return Timing(compute, end_to_end, part.texts("notes"))


def _times(part: Fields) -> Times:
    for key in ("median_ms", "p90_ms", "p99_ms"):
        if not part.number(key) >= 0:
            part.refuse(key, "is {}, and no time")
    if part.count("n") < 1:
        part.refuse("n", "is {}, and a time needs samples")
    loop = part.count("loop") if part.has("loop") else 1
    return Times(part.number("median_ms"), part.number("p90_ms"), part.number("p99_ms"), part.count("n"), loop)


def _energy(part: Fields) -> Energy:
    n = part.count("samples") if part.has("samples") else 0
    if part.has("refused"):
        return Energy(None, n, part.text("refused"))
    if not part.has("joules_per_inference"):
        return Energy(None, n, "not measured")
    joules = part.number("joules_per_inference")
    if joules < 0 or n < 1:
        part.refuse("joules_per_inference", f"is {{}} from {n} samples, and no energy")
    return Energy(joules, n, "")
