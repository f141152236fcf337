"""The sweep itself: what is there already, what is to be run, and each cell kept when it is finished."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.rivals.rival import check_rivals
from deploy_attn.sweeping.cell_file import Kept
from deploy_attn.sweeping.cluster import Stopped, cluster
from deploy_attn.sweeping.folder import CELLS, SweepFolder, sweep_folder
from deploy_attn.sweeping.made_with import made_with
from deploy_attn.sweeping.plan import DEFAULT_ENGINE, Cell, Plan, key_of
from deploy_attn.sweeping.process import LIMIT_S, CellProcess, Finished, job_of

# How many cells there are to run, and the one that is finished; None before the first.
OnCell = Callable[[int, Cell | None], None]
Jobs = Mapping[Cell, Mapping[str, Any]]
# Runs jobs in a folder for temporary ones, and yields each when it is finished.
Run = Callable[[Jobs, Path], Iterator[tuple[Cell, Finished]]]


@dataclass(frozen=True)
class SweepOptions:
    """Where a sweep runs.

    Attributes:
        scheduler: of dask.distributed, as tcp://host:8786; None for this machine, one cell after another.
        retry_failed: run cells again that failed before.
        cell_limit: seconds after which the process of a cell is ended, and the cell has failed.
        patience: seconds without any worker, after which a sweep on a scheduler ends.
        process: what runs a cell.

    Raises:
        BadRequest: no such limit.
    """

    scheduler: str | None = None
    retry_failed: bool = False
    cell_limit: float = LIMIT_S
    patience: float = 60.0
    process: CellProcess = field(default_factory=CellProcess)

    def __post_init__(self) -> None:
        if not 0 < self.cell_limit < math.inf:  # NaN is neither
            raise BadRequest(
                f"A limit of {self.cell_limit:g} seconds a cell was asked for. Give --cell-limit a number above 0, or "
                f"leave it out for {LIMIT_S:g}."
            )


@dataclass(frozen=True)
class SweepReport:
    """Every cell of a plan.

    Attributes:
        cells: those with an outcome, in the plan's order.
        not_run: those without.
        ran: how many were run by this call; the others were there.
        notes: what else there is to know of the folder.
    """

    folder: Path
    plan: Plan
    cells: tuple[Kept, ...]
    not_run: tuple[Cell, ...]
    ran: int
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Every cell of the plan is done."""
        return not self.not_run and all(kept.outcome.done for kept in self.cells)

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "folder": str(self.folder),
            "plan": self.plan.as_dict(),
            "ran": self.ran,
            "cells": [kept.as_dict() for kept in self.cells],
            "not_run": [cell.as_dict() for cell in self.not_run],
            "notes": list(self.notes),
        }


def sweep(plan: Plan, root: Path, options: SweepOptions | None = None, on_cell: OnCell | None = None) -> SweepReport:
    """Runs what a folder does not have of a plan, each cell in a process of its own.

    A cell that fails is kept with its reason, and the others go on. What is finished is kept at once, so that a
    sweep that is killed loses the cells that were running.

    Raises:
        BadRequest: another sweep runs into that folder, it is no sweep's, the scheduler cannot serve, nothing can be
            run or kept here any more, or no cell can end within its limit.
    """
    options = options or SweepOptions()
    _check_limit(plan, options)
    if options.scheduler is None and plan.effort.against is not None:
        check_rivals((plan.effort.against,), DEFAULT_ENGINE, True)  # a worker has rivals of its own
    with _runner(options, plan.target) as run, sweep_folder(root) as folder:
        versions = made_with()
        notes = _changes(folder, plan, versions)
        folder.begin(plan, versions)
        there, damaged = _there(folder, plan, versions)
        kept = {cell: one for cell, one in there.items() if one.outcome.done or not options.retry_failed}
        jobs = {cell: job_of(cell, plan.effort, options.cell_limit) for cell in plan.cells if cell not in kept}
        ran = 0
        try:
            for cell, finished in _told(run(jobs, folder.work), len(jobs), on_cell):
                kept[cell] = folder.keep(cell, plan.effort, versions, finished)
                ran += 1
        except Stopped as error:
            notes.append(str(error))
        return SweepReport(
            folder=root,
            plan=plan,
            cells=tuple(kept[cell] for cell in plan.cells if cell in kept),
            not_run=tuple(cell for cell in plan.cells if cell not in kept),
            ran=ran,
            notes=(*notes, *damaged),
        )


@contextlib.contextmanager
def _runner(options: SweepOptions, target: str) -> Iterator[Run]:
    if options.scheduler is None:
        yield lambda jobs, work: _here(options.process, jobs, work)
        return
    with cluster(options.scheduler, target, options.patience) as machines:
        yield lambda jobs, work: machines.run(options.process, jobs)


def _check_limit(plan: Plan, options: SweepOptions) -> None:
    if plan.effort.seconds is not None and plan.effort.seconds >= options.cell_limit:
        raise BadRequest(
            f"Each cell is to be measured for {plan.effort.seconds:g} s and ended after {options.cell_limit:g} s. Give "
            "--seconds less, or --cell-limit more."
        )


def _here(process: CellProcess, jobs: Jobs, work: Path) -> Iterator[tuple[Cell, Finished]]:
    """On this machine, one after another; what keeps one from being run keeps all of them."""
    for cell, job in jobs.items():
        try:
            finished = process.run(job, work)
        except OSError as error:
            what = error.strerror or str(error)
            raise BadRequest(
                f"{cell} cannot be run in {work}: {what}{f' ({error.filename})' if error.filename else ''}. What is "
                "finished is kept; mend that, and the same command goes on."
            ) from error
        yield cell, finished


def _told(
    finished: Iterator[tuple[Cell, Finished]], total: int, on_cell: OnCell | None
) -> Iterator[tuple[Cell, Finished]]:
    """The same, telling how far it is."""
    tell = on_cell or (lambda total, cell: None)
    tell(total, None)
    for cell, one in finished:
        yield cell, one
        tell(total, cell)


def _there(folder: SweepFolder, plan: Plan, versions: Mapping[str, str]) -> tuple[dict[Cell, Kept], list[str]]:
    """Cells of the plan that are in the folder, and a line for each whose file cannot be read."""
    found: dict[Cell, Kept] = {}
    damaged = []
    for cell in plan.cells:
        try:
            kept = folder.kept(key_of(cell, plan.effort, versions))
        except BadRequest as error:
            damaged.append(f"{error} It was run again.")
            continue
        if kept is None:
            continue
        if (kept.cell, kept.effort) == (cell, plan.effort):
            found[cell] = kept
        else:
            damaged.append(f"The file of {cell}, {kept.key}.json, is of {kept.cell}. It was run again.")
    return found, damaged


def _changes(folder: SweepFolder, plan: Plan, versions: Mapping[str, str]) -> list[str]:
    """What is asked otherwise than before, in a folder that was swept into."""
    if folder.before is None:
        return []
    notes = []
    if dict(folder.before.plan) != plan.as_dict():
        keys = {key_of(cell, plan.effort, versions) for cell in plan.cells}
        there = folder.keys()
        notes.append(
            f"The plan is not the one of the last sweep into this folder: {len(keys - there)} cells are new, and "
            f"{len(there - keys)} that it does not ask for stay in {folder.root / CELLS}."
        )
    changed = {
        name: (folder.before.made_with.get(name), versions.get(name)) for name in {*folder.before.made_with, *versions}
    }
    changed = {name: pair for name, pair in sorted(changed.items()) if pair[0] != pair[1]}
    if changed:
        said = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed.items())
        notes.append(
            f"Versions changed since the last sweep into this folder ({said}). A cell counts only with the versions "
            "that it was made with."
        )
    return notes
