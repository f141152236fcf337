"""Figures of an artifact as several parts of a page need them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deploy_attn.benching.file import Measured
from deploy_attn.engines.target import Target
from deploy_attn.html_report.subjects import Subject
from deploy_attn.jetson.parity import Check
from deploy_attn.verdict_file import VerdictFile

_PESSIMISTIC = "pessimistic"  # the bracket that no engine computes in
_MOST_NAMED = 8  # artifacts whose names fit beside points
_DEEPEST = 3
_MOST_VALUES = 8
_MOST_CHARACTERS = 200


@dataclass(frozen=True)
class Standing:
    """An artifact in one precision in one engine in one place: its time in milliseconds, and its worst error.

    `p10` is NaN where the run does not tell it, as a board's. `target` is the one that the run itself says it was on,
    and else empty. `roof` is the machine that it was on as a target of its own, where its limits were measured, and
    `disturbed` what else ran while they were.
    """

    subject: Subject
    precision: str
    setting: str
    target: str
    median: float
    p10: float
    p90: float
    error: float
    roof: Target | None = None
    disturbed: str = ""


def standings(subject: Subject) -> Iterator[Standing]:
    """Of the newest comparison in each setting, and of boards that measured times."""
    newest = {(one.precision, setting_of(one)): one for one in subject.comparisons}
    for (precision, setting), one in newest.items():
        verdicts = [verdict for verdict in subject.report.verdicts if verdict.engine == one.engine]
        error = worst_error([check for verdict in verdicts for check in verdict.checks], precision)
        times, limits = one.candidate.latency, one.limits
        standing = Standing(subject, precision, setting, "", times.median, times.p10, times.p90, error)
        if limits is None:
            yield standing
        else:
            roof = limits.target(cold=one.conditions.get("cache") == "cold")
            yield replace(standing, roof=roof, disturbed=limits.disturbed)
    for verdict in subject.report.verdicts:
        for precision, timing in verdict.timing.items():
            found = timing.compute or timing.end_to_end
            if found is not None:
                error = worst_error(verdict.checks, precision)
                setting, target = f"{verdict.where}, {engine_of(verdict)}", str(verdict.document.get("target") or "")
                yield Standing(subject, precision, setting, target, found.median, math.nan, found.p90, error)


def labels_of(subjects: Sequence[Subject]) -> Mapping[str, str]:
    """What a point of a plot bears, by the artifact's label: that, or its number where there are many."""
    if len(subjects) <= _MOST_NAMED:
        return {subject.label: subject.label for subject in subjects}
    return {subject.label: str(number) for number, subject in enumerate(subjects, 1)}


def told(subject: Subject, names: Mapping[str, str]) -> str:
    """An artifact in a table beside a plot: after its number, where points bear that."""
    name = names[subject.label]
    return subject.label if name == subject.label else f"{name}. {subject.label}"


def worst_error(checks: Sequence[Check], precision: str) -> float:
    """The largest RMS relative error of what an engine computes; NaN where nothing was compared, or is not finite."""
    found = [
        check.comparison.rms_relative
        for check in checks
        if check.precision == precision and check.bracket != _PESSIMISTIC and check.comparison is not None
    ]
    return max(found, default=math.nan) if all(map(math.isfinite, found)) else math.nan


def setting_of(one: Measured) -> str:
    """Where times may stand side by side: engine, threads, caches and processor, as far as they were told."""
    conditions = one.conditions
    threads, cache, machine = (conditions.get(key) for key in ("threads", "cache", "machine"))
    told = [one.engine]
    if isinstance(threads, int):
        told.append(f"{threads} thread{'s' if threads != 1 else ''}")
    if isinstance(cache, str):
        told.append(f"{cache} caches")
    if isinstance(machine, dict) and isinstance(machine.get("cpu"), str):
        told.append(machine["cpu"])
    return ", ".join(told)


def engine_of(verdict: VerdictFile) -> str:
    return f"{verdict.engine} {verdict.version}".rstrip()


def flat(values: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Conditions as pairs of texts: `machine.cpu` and its value."""
    for key, value in values.items():
        if isinstance(value, dict) and depth < _DEEPEST:
            yield from flat(value, f"{prefix}{key}.", depth + 1)
        else:
            yield _cut(f"{prefix}{key}"), _cut(_told(value))


def _told(value: object) -> str:
    if value is None:
        return "not told"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return f"{len(value)} values"
    if isinstance(value, list):
        plain = len(value) <= _MOST_VALUES and not any(isinstance(one, (list, dict)) for one in value)
        return ", ".join(map(_told, value)) if plain else f"{len(value)} values"
    return str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
