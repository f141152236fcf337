"""What was verified of an artifact, wherever that was."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from deploy_attn.html_report.blocks import FAIL, NONE, PASS, Block, Missing, Section, Table, Text, columns, number
from deploy_attn.html_report.facts import engine_of, worst_error
from deploy_attn.html_report.subjects import Subject
from deploy_attn.jetson.parity import Check
from deploy_attn.jetson.verdict import failure
from deploy_attn.reporting import ABOUT_TIMES
from deploy_attn.verdict_file import VerdictFile


def verdict_section(subject: Subject, anchor: str) -> Section:
    return Section("Verdicts", f"{anchor}-verdicts", tuple(_blocks(subject)))


def _blocks(subject: Subject) -> Iterator[Block]:
    report = subject.report
    if not report.verdicts:
        yield Missing(
            "Nothing was verified of this artifact.", f"deploy-attn verify {shlex.quote(str(subject.folder))}"
        )
    else:
        heads = columns("Where", "Engine", "Precision", numbers=("Worst error", "Checks that hold"), mark="Verdict")
        yield Table("Verdicts by place and precision", heads, tuple(_sums(subject)))
        yield _checks(report.verdicts)
    for verdict in report.verdicts:
        place = f"{verdict.where}, {engine_of(verdict)}"
        for check in verdict.checks:
            if not check.passed:
                yield Text(f"{place}: {failure(check)}")
        yield from (Text(f"Problem on {place}: {text}") for text in verdict.problems)
        yield from (Text(f"Warning on {place}: {text}") for text in verdict.warnings)
    yield from (Text(f"Note: {note}") for note in report.notes)
    yield from (Text(f"Set apart: {one.verdict.file}: {one.reason}") for one in report.set_apart)
    times = tuple(_times(report.verdicts))
    if times:
        heads = columns("Where", "Precision", "Timed", numbers=("Median ms", "p90", "p99", "n", "J/inference"))
        yield Table("Times and energy that runs measured", heads, times)
        yield Text(ABOUT_TIMES)


def _sums(subject: Subject) -> Iterator[tuple[str, ...]]:
    """A row for each verdict and precision; none holds where the run itself says that it failed as a whole."""
    for verdict in subject.report.verdicts:
        whole = verdict.passed or not all(check.passed for check in verdict.checks)
        for precision in dict.fromkeys(check.precision for check in verdict.checks):
            checks = [check for check in verdict.checks if check.precision == precision]
            held = sum(check.passed for check in checks)
            worst = number(worst_error(checks, precision), 2)
            mark = PASS if held == len(checks) and whole and not verdict.problems else FAIL
            yield verdict.where, engine_of(verdict), precision, worst, f"{held} of {len(checks)}", mark
        if not verdict.checks:
            yield verdict.where, engine_of(verdict), NONE, NONE, "0 of 0", FAIL


def _checks(verdicts: tuple[VerdictFile, ...]) -> Table:
    rows = [(verdict.where, *_check(check)) for verdict in verdicts for check in verdict.checks]
    heads = columns(
        *("Where", "Graph", "Bracket", "Case", "Output"),
        numbers=("RMS relative", "Allowed", "Max abs", "Cosine"),
        mark="Check",
    )
    return Table(f"All {len(rows)} checks", heads, tuple(rows), folded=True)


def _check(check: Check) -> tuple[str, ...]:
    found, mark = check.comparison, PASS if check.passed else FAIL
    measured = (NONE, NONE, NONE)
    if found is not None:
        measured = (f"{found.rms_relative:.1e}", f"{found.max_abs:.1e}", f"{found.cosine:.7f}")
    names = (check.graph, check.bracket, check.case, check.output)
    return (*names, measured[0], f"{check.tolerance.rms_relative:.0e}", *measured[1:], mark)


def _times(verdicts: tuple[VerdictFile, ...]) -> Iterator[tuple[str, ...]]:
    for verdict in verdicts:
        for precision, timing in verdict.timing.items():
            energy = verdict.energy.get(precision)
            joules = number(energy.joules) if energy is not None and energy.joules is not None else NONE
            for kind, times in (("graph alone", timing.compute), ("with inputs and outputs moved", timing.end_to_end)):
                if times is not None:
                    figures = (number(value) for value in (times.median, times.p90, times.p99))
                    n = str(times.n) if times.loop == 1 else f"{times.n} of {times.loop} in a row"
                    yield verdict.where, precision, kind, *figures, n, joules
