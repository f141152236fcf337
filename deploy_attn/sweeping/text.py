"""A sweep for a person: cells as they finish, then a row for each, and one line that is the verdict."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from deploy_attn.sweeping.folder import ARTIFACTS, CELLS
from deploy_attn.verdict_text import cell as shown

if TYPE_CHECKING:
    from rich.table import Table

    from deploy_attn.sweeping.cell_file import Figures, Kept
    from deploy_attn.sweeping.plan import Cell
    from deploy_attn.sweeping.sweep import OnCell, SweepReport

_PLACES = ("module", "shape", "precision", "engine", "where")
_MOST_NAMED = 3  # cells of one reason
_WIDEST = 1000


def show_sweep(report: SweepReport) -> None:
    """Prints the table, what is said below it, and how many cells are done."""
    from rich.console import Console

    console = Console(highlight=False)
    table = _table(report)
    if not console.is_terminal:
        console.width = max(
            console.width, console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
        )
    console.print(table)
    for line in _lines(report):
        console.print(line, soft_wrap=True)


@contextlib.contextmanager
def progress_on_stderr() -> Iterator[OnCell | None]:
    """A callback that shows how far a sweep is on a terminal, and nothing (None) where stderr is none."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sweep", total=None)

        def take(total: int, cell: Cell | None) -> None:
            done = 0 if cell is None else 1
            bar.update(task, total=total, advance=done, description=f"sweep, last {cell}" if cell else "sweep")

        yield take


def _table(report: SweepReport) -> Table:
    """A row for each cell, without what is the same in all of them."""
    from rich import box
    from rich.table import Table

    rows = {**{kept.cell: kept for kept in report.cells}, **dict.fromkeys(report.not_run)}
    places = {cell: _place(cell, rows[cell]) for cell in report.plan.cells}
    told = [
        name for name in _PLACES if len({place[name] for place in places.values()} - {""}) > 1 or name == _PLACES[0]
    ]
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in told:
        table.add_column(heading)
    for heading in ("median ms", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for cell, place in places.items():
        kept = rows[cell]
        figures = None if kept is None else kept.outcome.figures
        table.add_row(*(shown(place[name]) for name in told), *_figures(figures), _mark(kept))
    return table


def _place(cell: Cell, kept: Kept | None) -> dict[str, str]:
    where = "" if kept is None else kept.outcome.where
    return dict(zip(_PLACES, (str(cell.module), cell.shape, cell.precision, cell.engine, where)))


def _figures(figures: Figures | None) -> tuple[str, str]:
    if figures is None:
        return "", ""
    ratio = figures.ratio
    return (
        f"{figures.median_ms:.4g}",
        "" if ratio is None else f"{ratio.median:.3f}x +-{ratio.error * ratio.median:.3f}",
    )


def _mark(kept: Kept | None) -> str:
    if kept is None:
        return "[yellow]not run[/yellow]"
    if kept.outcome.done:
        figures = kept.outcome.figures
        bears = figures is None or figures.ratio is None or figures.claim is not None
        return "[green]done[/green]" if bears else "[yellow]done, no claim[/yellow]"
    return "[red]parity fails[/red]" if kept.outcome.holds is False else "[red]failed[/red]"


def _lines(report: SweepReport) -> Iterator[str]:
    cells = report.plan.cells
    same = [cells[0].precision] * (len(report.plan.precisions) == 1) + [cells[0].engine] * (
        len(report.plan.engines) == 1
    )
    against = report.plan.effort.against
    if same:
        yield f"All in {' and '.join(same)}, for {report.plan.target}."
    if against is not None:
        yield (
            f"ratio: the time of {against} over that of the artifact, in pairs, with the error bar of its control; "
            "above 1 the artifact is faster. Times of two cells are never compared with each other."
        )
    yield from _reasons("[red]failed[/red]", {kept.cell: kept.outcome.reason for kept in report.cells})
    if against is not None:
        refused = {kept.cell: kept.outcome.figures for kept in report.cells}
        yield from _reasons("no claim", {cell: found.refused or "" for cell, found in refused.items() if found})
    for note in report.notes:
        yield f"[yellow]note[/yellow]  {shown(note)}"
    if not all(kept.outcome.done for kept in report.cells):
        yield f"Whole reasons are in {shown(str(report.folder / CELLS))}. --retry-failed runs failed cells again."
    if report.not_run:
        yield f"{len(report.not_run)} not run; the same command goes on with them."
    if any(kept.artifact for kept in report.cells):
        kept_in = shown(shlex.quote(str(report.folder / ARTIFACTS)))
        yield f"`deploy-attn report {kept_in}/* -o sweep.html` shows what was exported and measured."
    done = sum(kept.outcome.done for kept in report.cells)
    mark = "[bold green]PASS[/bold green]" if report.passed else "[bold red]FAIL[/bold red]"
    there = len(report.cells) - report.ran
    yield f"{mark}  {done} of {len(cells)} cells done; {report.ran} run, {there} were there"


def _reasons(mark: str, reasons: Mapping[Cell, str]) -> Iterator[str]:
    """A line for each reason, with the cells that have it."""
    cells: dict[str, list[Cell]] = {}
    for cell, reason in reasons.items():
        cells.setdefault(reason.strip().partition("\n")[0], []).append(cell)
    for reason, having in cells.items():
        if reason:
            more = f" and {len(having) - _MOST_NAMED} more" if len(having) > _MOST_NAMED else ""
            yield f"{mark}  {shown(', '.join(map(str, having[:_MOST_NAMED])) + more)}: {shown(reason)}"
