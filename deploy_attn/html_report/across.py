"""All artifacts of a page beside each other: what holds, what it costs, and how accurate it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from deploy_attn.benching.file import Measured
from deploy_attn.html_report.blocks import FAIL, NONE, PASS, Block, Missing, Section, Table, Text, columns, number
from deploy_attn.html_report.facts import Standing, labels_of, setting_of, told, worst_error
from deploy_attn.html_report.latency import ABOUT_RATIOS, bench_command, interval, ratio_text
from deploy_attn.html_report.plots import Point, accuracy_against_latency, ratios
from deploy_attn.html_report.subjects import Subject

_MOST_DRAWN = 48  # rows of a plot


def across_section(subjects: Sequence[Subject], found: Sequence[Standing]) -> Section:
    return Section("Overview", "overview", tuple(_blocks(subjects, found)))


def _blocks(subjects: Sequence[Subject], found: Sequence[Standing]) -> Iterator[Block]:
    heads = columns("No.", "Artifact", "Shape", "Target", "Precision", numbers=("Worst error", "FP16 nodes"))
    verdict = columns(mark="Verdicts")
    rows = (row for place, subject in enumerate(subjects, 1) for row in _rows(place, subject))
    yield Table("Artifacts", (*heads, *verdict), tuple(rows))
    names = labels_of(subjects)
    settings = tuple(dict.fromkeys(one.setting for one in found))
    for setting in settings:
        yield from _accuracy(setting, [one for one in found if one.setting == setting], names)
    if not settings:
        text = "Accuracy against latency needs measured times, and no artifact of this page has any."
        yield Missing(text, bench_command(subjects[0]))
    if len(subjects) > 1:
        yield from _ratios([(subject, one) for subject in subjects for one in subject.comparisons])


def _rows(place: int, subject: Subject) -> Iterator[tuple[str, ...]]:
    checks = [check for verdict in subject.report.verdicts for check in verdict.checks]
    planned = NONE if subject.plan is None else f"{subject.plan.count('fp16')} of {len(subject.plan.nodes)}"
    for precision in subject.precisions:
        worst = number(worst_error(checks, precision), 2)
        half = planned if precision == "fp16" else NONE
        mark = PASS if subject.report.passed else FAIL if subject.report.verdicts else NONE
        yield str(place), subject.label, subject.shape, subject.target, precision, worst, half, mark


def _accuracy(setting: str, found: Sequence[Standing], names: Mapping[str, str]) -> Iterator[Block]:
    points = [
        Point(names[one.subject.label], one.precision, one.median, one.p10, one.p90, one.error)
        for one in found
        if math.isfinite(one.error)
    ]
    if points:
        yield accuracy_against_latency(f"Accuracy against latency: {setting}", points)
    else:
        yield Text(f"{setting}: times were measured, but nothing was verified there to set them against.")
    rows = (
        (told(one.subject, names), one.precision, *map(number, (one.median, one.p10, one.p90)), number(one.error, 2))
        for one in sorted(found, key=lambda one: one.median)
    )
    heads = columns("Artifact", "Precision", numbers=("Median ms", "p10", "p90", "Worst error"))
    yield Table(f"Times and errors: {setting}", heads, tuple(rows), folded=len(found) > _MOST_DRAWN)


def _ratios(found: Sequence[tuple[Subject, Measured]]) -> Iterator[Block]:
    """A plot for each baseline and setting."""
    groups = dict.fromkeys((one.baseline.label, setting_of(one)) for _, one in found)
    if groups:
        yield Text(ABOUT_RATIOS)
    for group in groups:
        here = [(subject, one) for subject, one in found if (one.baseline.label, setting_of(one)) == group]
        title = f"Against {group[0]}: {group[1]}"
        if len(here) > _MOST_DRAWN:
            yield Text(f"The next plot shows the first {_MOST_DRAWN} of {len(here)} comparisons, its table all.")
        yield ratios(title, [interval(one, f"{one.precision} {subject.label}") for subject, one in here[:_MOST_DRAWN]])
        rows = (
            (subject.label, one.precision, "yes" if one.claim else "no", ratio_text(one), str(one.ratio.pairs))
            for subject, one in here
        )
        heads = columns("Artifact", "Precision", "May be claimed", numbers=("Ratio", "Pairs"))
        yield Table(title, heads, tuple(rows), folded=len(here) > _MOST_DRAWN)
