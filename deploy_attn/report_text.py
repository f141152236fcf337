"""A report for a person: one table of every check wherever it ran, what the runs warn of, and one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from deploy_attn.engines.tolerance import TOLERANCES
from deploy_attn.jetson.verdict import failure
from deploy_attn.reporting import ABOUT_TIMES
from deploy_attn.verdict_text import CHECK_COLUMNS, cell, check_cells, mark_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from deploy_attn.reporting import Report
    from deploy_attn.verdict_file import Energy, Times, Timing, VerdictFile

_WIDEST = 1000
_WHOLE = "all "  # how what was compared begins where the reference has every element
_RUN, _RUN_NUMBER = ("where", "engine"), ("run",)
_FIGURES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"timing": ("timed", "median ms", "p90", "p99", "n"), "energy": ("J/inference", "n")}
)
_MARKS: Mapping[bool, str] = MappingProxyType(
    {True: "[bold green]PASS[/bold green]", False: "[bold red]FAIL[/bold red]"}
)


def show_report(report: Report) -> None:
    """Prints the table, what is said below it, and the verdict over all of them."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"[bold]{cell(report.artifact)}[/bold]  {_hash(report)}", soft_wrap=True)
    if report.verdicts:
        _show_table(console, report)
    for line in _lines(report):
        console.print(line, soft_wrap=True)


def _show_table(console: Console, report: Report) -> None:
    """Whole where it fits or is piped; else without what stands below it too, and a number for each run."""
    table = _table(report, by_number=False)
    natural = console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
    if not console.is_terminal:
        console.width = max(console.width, natural)
    elif natural > console.width:
        table = _table(report, by_number=True)
        for number, verdict in enumerate(report.verdicts, 1):
            console.print(f"{number}  {_place(verdict)}", soft_wrap=True)
    console.print(table)


def _table(report: Report, by_number: bool) -> Table:
    """A row for each check. What was measured of a whole precision stands in the first row of it."""
    from rich import box
    from rich.table import Table

    measured = {what: names for what, names in _FIGURES.items() if _has(report, what) and not by_number}
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in (*(_RUN_NUMBER if by_number else _RUN), "precision"):
        table.add_column(heading)
    for heading, justify in CHECK_COLUMNS.items():
        table.add_column(heading, justify=justify)
    for headings in measured.values():
        for heading in headings:
            side: Literal["left", "right"] = "left" if heading == "timed" else "right"
            table.add_column(heading, justify=side)
    table.add_column("")
    for number, verdict in enumerate(report.verdicts, 1):
        run = (str(number),) if by_number else (cell(verdict.where), cell(_engine(verdict)))
        shown: set[str] = set()
        for check in verdict.checks:
            figures = _figures(verdict, "" if check.precision in shown else check.precision, tuple(measured))
            shown.add(check.precision)
            table.add_row(*run, check.precision, *check_cells(check), *figures, mark_of(check.passed))
    return table


def _has(report: Report, what: str) -> bool:
    """Whether any run has `timing` or `energy` in figures."""
    if what == "timing":
        return any(_kinds(one) for verdict in report.verdicts for one in verdict.timing.values())
    return any(one.joules is not None for verdict in report.verdicts for one in verdict.energy.values())


def _figures(verdict: VerdictFile, precision: str, measured: tuple[str, ...]) -> tuple[str, ...]:
    cells: tuple[str, ...] = ()
    if "timing" in measured:
        cells += _time_cells(verdict.timing.get(precision))
    if "energy" in measured:
        cells += _energy_cells(verdict.energy.get(precision))
    return cells


def _time_cells(timing: Timing | None) -> tuple[str, ...]:
    """Of the graph alone where that was timed, else with its inputs and outputs moved."""
    for kind, times in _kinds(timing).items():
        return (kind, *(f"{value:.4g}" for value in (times.median, times.p90, times.p99)), _samples(times))
    return ("",) * len(_FIGURES["timing"])


def _kinds(timing: Timing | None) -> dict[str, Times]:
    kinds = {"compute": timing.compute, "end to end": timing.end_to_end} if timing is not None else {}
    return {kind: times for kind, times in kinds.items() if times is not None}


def _energy_cells(energy: Energy | None) -> tuple[str, ...]:
    if energy is None or energy.joules is None:
        return "", ""
    return f"{energy.joules:.3g}", str(energy.n)


def _samples(times: Times) -> str:
    return str(times.n) if times.loop == 1 else f"{times.n} of {times.loop} in a row"


def _lines(report: Report) -> Iterator[str]:
    """Everything below the table: what failed, what the runs say of themselves, then each verdict and their sum."""
    for verdict in report.verdicts:
        yield from _about(verdict)
        yield from _measured(verdict)
    for note in report.notes:
        yield f"[yellow]note[/yellow]  {cell(note)}"
    for one in report.set_apart:
        yield f"[red]set apart[/red]  {cell(str(one.verdict.file))}: {cell(one.reason)}"
    if _has(report, "timing") or _has(report, "energy"):
        yield ABOUT_TIMES
    for verdict in report.verdicts:
        passed = sum(check.passed for check in verdict.checks)
        yield (
            f"{_MARKS[verdict.passed]}  {passed} of {len(verdict.checks)} checks hold on {cell(verdict.where)} in "
            f"{cell(_engine(verdict))}  ({cell(str(verdict.file))})"
        )
    named = len(report.verdicts) + len(report.set_apart)
    passed = sum(verdict.passed for verdict in report.verdicts)
    apart = f", {len(report.set_apart)} set apart" if report.set_apart else ""
    yield f"{_MARKS[report.passed]}  {passed} of {named} verdicts hold{apart}"


def _about(verdict: VerdictFile) -> Iterator[str]:
    """What does not hold and why, what was compared in part, then what the run warns of."""
    place = _place(verdict)
    failures = [failure(check) for check in verdict.checks if not check.passed]
    if not (verdict.passed or verdict.problems or failures):
        failures.append("the run says that it failed, and not why")
    for check in verdict.checks:
        if check.precision == "fp32" and check.tolerance.rms_relative > TOLERANCES["fp32"].rms_relative:
            yield f"{place}: {cell(f'{check.graph}, {check.case}: {check.tolerance.reason}')}"
    for text in failures:
        yield f"[red]{place}: {_several(text)}[/red]"
    for compared, count in Counter(check.compared for check in verdict.checks).items():
        if compared is not None and not compared.startswith(_WHOLE):
            yield f"[yellow]note[/yellow]  {place}: {count} of {len(verdict.checks)} checks compared {cell(compared)}"
    for problem in verdict.problems:
        yield f"[red]problem[/red]  {place}: {_several(problem)}"
    for warning in verdict.warnings:
        yield f"[yellow]warning[/yellow]  {place}: {_several(warning)}"


def _measured(verdict: VerdictFile) -> Iterator[str]:
    """Times and energy of each precision in a line, and what a reader of the numbers must know."""
    for precision in dict.fromkeys((*verdict.timing, *verdict.energy)):
        place = f"{_place(verdict)}, {cell(precision)}"
        timing, energy = verdict.timing.get(precision), verdict.energy.get(precision)
        figures = [f"{kind} {_told(times)}" for kind, times in _kinds(timing).items()]
        if energy is not None and energy.joules is not None:
            figures.append(f"{energy.joules:.3g} J an inference (n {energy.n})")
        if figures:
            yield f"{place}: {'; '.join(figures)}"
        for note in timing.notes if timing is not None else ():
            yield f"[yellow]note[/yellow]  {place}: {_several(note)}"
        if energy is not None and energy.joules is None:
            yield f"[yellow]note[/yellow]  {place}, no energy: {_several(energy.refused)}"


def _place(verdict: VerdictFile) -> str:
    return f"{cell(verdict.where)}, {cell(_engine(verdict))}"


def _several(text: str) -> str:
    """Text of more lines than one, as a parser's errors are, with the later ones indented."""
    return "\n    ".join(cell(line.strip()) for line in text.splitlines())


def _told(times: Times) -> str:
    return f"{times.median:.4g} ms, p90 {times.p90:.4g}, p99 {times.p99:.4g} (n {_samples(times)})"


def _engine(verdict: VerdictFile) -> str:
    return f"{verdict.engine} {verdict.version}".rstrip()


def _hash(report: Report) -> str:
    if report.sha256 is None:
        return "(which artifact exactly is not told)"
    return f"manifest {cell(report.sha256[:12])}"
