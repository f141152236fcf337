"""A floor for a person: a row a graph, what was measured beside it, and what the floor takes for granted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.engines.roofline import BANDWIDTH
from deploy_attn.engines.target import MEASURED, SCHEMA, Fact
from deploy_attn.verdict_text import cell

if TYPE_CHECKING:
    from rich.table import Table

    from deploy_attn.benching.estimate import Estimates
    from deploy_attn.benching.estimate_runs import Measured
    from deploy_attn.engines.roofline import Estimate

_COLUMNS = (
    "graph",
    "floor ms",
    "binds",
    "memory ms",
    "compute ms",
    "node by node ms",
    "least MB",
    "M operations",
    "op/byte",
)


def show_estimates(found: Estimates) -> None:
    """Prints the table, then a line for each thing that its reader must know."""
    from rich.console import Console

    console = Console(highlight=False)
    first = found.estimates[0]
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in first.shapes.items())
    console.print(
        f"[bold]{cell(found.artifact)}[/bold] on {cell(first.target)} ({cell(first.title)}), {cell(shapes)}: "
        f"[bold yellow]an estimate, {_basis(first)}[/bold yellow]",
        soft_wrap=True,
    )
    table = _table(found)
    if not console.is_terminal:
        console.width = max(
            console.width, console.measure(table, options=console.options.update(max_width=1000)).maximum
        )
    console.print(table)
    for line in _lines(found):
        console.print(line, soft_wrap=True)


def _basis(one: Estimate) -> str:
    return "bandwidth and peaks were measured here just now" if one.measured_here else "nothing was run"


def _table(found: Estimates) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in _COLUMNS:
        table.add_column(heading, justify="left" if heading in ("graph", "binds") else "right")
    for one in found.estimates:
        operations = sum(counts.operations for counts in one.work.operations.values())
        times = (f"{value:.3g}" for value in (one.memory_ms, one.compute_ms, one.node_by_node_ms))
        sizes = (f"{one.work.traffic.least / 1e6:.3g}", f"{operations / 1e6:.3g}", f"{one.intensity:.3g}")
        table.add_row(f"{one.graph} ({one.precision})", f"[bold]{one.floor_ms:.3g}[/bold]", one.binds, *times, *sizes)
    return table


def _lines(found: Estimates) -> Iterator[str]:
    floors = {one.precision: one for one in found.estimates}
    for measured in found.measured:
        yield _measured(measured, floors[measured.precision])
    if not found.measured:
        yield f"measured: nothing. Its folder holds no times of this artifact from {_how_to_measure(found)}"
    for reason in found.set_apart:
        yield f"[yellow]set apart[/yellow]  {cell(reason)}"
    for limits in found.limits:
        if limits.disturbed:
            yield f"[yellow]note[/yellow]  {limits.disturbed} meanwhile: at its best this machine may do more."
    for key, fact in dict.fromkeys(used for one in found.estimates for used in one.facts.items()):
        note = f"; {cell(fact.note)}" if fact.note else ""
        yield f"used: {_meaning(key, fact)}: {fact.value:.4g} ({fact.mark}{note})"
    for one in found.estimates:
        if one.work.uncounted:
            told = ", ".join(f"{cell(kind)} x {count}" for kind, count in one.work.uncounted.items())
            yield f"[yellow]note[/yellow]  {one.graph}: operations not counted, only bytes: {told}"
    for text in found.estimates[0].assumptions:
        yield f"assumed: {text}"


def _meaning(key: str, fact: Fact) -> str:
    if fact.mark == MEASURED and key == BANDWIDTH:  # which is the caches', where they hold the data
        return "bandwidth in GB/s"
    table, name = key.split(".")
    return SCHEMA[table][name].meaning


def _how_to_measure(found: Estimates) -> str:
    """The rest of the sentence that says where no times are from."""
    if found.limits:
        return f"this machine as it is asked about; `deploy-attn bench {shlex.quote(found.folder)}` measures them."
    return (
        f"{cell(found.estimates[0].target)}; `deploy-attn bundle` and `python3 run.py` there, or `deploy-attn remote`, "
        "make a verdict that does."
    )


def _measured(one: Measured, floor: Estimate) -> str:
    times = one.times
    return (
        f"[bold]measured[/bold]  {cell(one.where)}, {cell(one.engine)}, {cell(one.precision)}, {one.kind}: "
        f"{times.median:.4g} ms, p90 {times.p90:.4g} (n {times.n}), {times.median / floor.floor_ms:.2g} times the floor"
    )
