"""What was timed of an artifact: each candidate's times, and the ratios within pairs with their error bar."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from deploy_attn.benching.file import Measured, Ratio, Spread
from deploy_attn.html_report.blocks import Block, Missing, Section, Table, Text, columns, number
from deploy_attn.html_report.facts import setting_of
from deploy_attn.html_report.plots import Distribution, Interval, distributions, ratios
from deploy_attn.html_report.subjects import Subject
from deploy_attn.html_report.tuned import tuned_blocks

_MOST_DRAWN = 24  # comparisons of one plot, the newest
ABOUT_RATIOS = (
    "A ratio is taken within pairs of calls, the baseline's time over the candidate's: above 1 the candidate is "
    "faster. Its error bar is how far the same candidate, timed against itself in the same way, came out from 1. "
    "Rivals compute in FP32, in whichever precision the candidate does."
)


def latency_section(subject: Subject, anchor: str) -> Section:
    return Section("Latency", f"{anchor}-latency", (*_blocks(subject), *tuned_blocks(subject)))


def _blocks(subject: Subject) -> Iterator[Block]:
    found = subject.comparisons
    if not found:
        yield Missing("No latency was measured of this artifact.", bench_command(subject))
        return
    drawn = found[-_MOST_DRAWN:]
    if len(drawn) < len(found):
        yield Text(f"The plots show the last {len(drawn)} of {len(found)} comparisons, the tables all.")
    yield Text(ABOUT_RATIOS)
    yield ratios(f"Ratios of {subject.label}", [_interval(one) for one in drawn])
    yield distributions(f"Times of {subject.label}", [side for one in drawn for side in _sides(one)])
    heads = columns("Precision", "Against", numbers=("Ratio", "p10", "p90", "Pairs", "Control"))
    for setting in dict.fromkeys(map(setting_of, found)):
        rows = tuple(_ratio_row(one) for one in found if setting_of(one) == setting)
        yield Table(f"Ratios: {setting}", (*heads, *columns("What may be claimed")), rows)
    heads = columns("Precision", "Candidate", numbers=("Median ms", "p10", "p90", "p99", "Least", "Most", "n"))
    yield Table("Times, a comparison in two rows", heads, tuple(row for one in found for row in _time_rows(one)))
    yield from (Text(_disturbed(one)) for one in found if one.repeated or one.spoiled)


def bench_command(subject: Subject) -> str:
    return f"deploy-attn bench {shlex.quote(str(subject.folder))} --against naive"


def _interval(one: Measured) -> Interval:
    return interval(one, f"{one.precision} against {one.baseline.label}")


def interval(one: Measured, label: str) -> Interval:
    ratio = one.ratio
    return Interval(label, one.precision, ratio.median, ratio.p10, ratio.p90, one.error, bool(one.claim))


def _sides(one: Measured) -> Sequence[Distribution]:
    return (
        Distribution(one.baseline.label, "baseline", one.baseline.latency.quantiles),
        Distribution(one.candidate.label, one.precision, one.candidate.latency.quantiles),
    )


def ratio_text(one: Measured) -> str:
    """The median and its error bar."""
    return f"{one.ratio.median:.3f} \N{PLUS-MINUS SIGN} {one.error * one.ratio.median:.3f}"


def _ratio_row(one: Measured) -> tuple[str, ...]:
    spread = (f"{value:.2f}" for value in (one.ratio.p10, one.ratio.p90))
    claim = one.claim or f"Nothing: {one.refused}"
    control = _control(one.control)
    names = (one.precision, one.baseline.label)
    return (*names, ratio_text(one), *spread, str(one.ratio.pairs), control, claim)


def _control(control: Ratio) -> str:
    return f"{control.median:.3f} (n {control.pairs})"


def _time_rows(one: Measured) -> Iterator[tuple[str, ...]]:
    for side in (one.baseline, one.candidate):
        yield one.precision, side.label, *_times(side.latency)


def _times(times: Spread) -> tuple[str, ...]:
    figures = (times.median, times.p10, times.p90, times.p99, times.quantiles[0], times.quantiles[-1])
    return (*map(number, figures), str(times.n))


def _disturbed(one: Measured) -> str:
    reasons = f" ({'; '.join(one.reasons)})" if one.reasons else ""
    blocks = f"{one.repeated} block{'s' if one.repeated != 1 else ''}"
    kept = f" {one.spoiled} of the {one.kept} that count are no better." if one.spoiled else ""
    return (
        f"{one.precision} against {one.baseline.label}: {blocks} repeated, because something else ran{reasons}.{kept}"
    )
