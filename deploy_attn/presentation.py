"""Reports for a person: tables and one line that is the verdict."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy_attn import build_text, bundle_text, tax_text
from deploy_attn.benching import text as bench_text
from deploy_attn.benching.estimate_text import show_estimates as show_estimates
from deploy_attn.engines.tolerance import TOLERANCES
from deploy_attn.finding_text import finding_groups
from deploy_attn.fix_text import show_fix as show_fix
from deploy_attn.fusing.text import show_fused as show_fused
from deploy_attn.jetson.verdict import failure
from deploy_attn.lint_text import finding_lines, verdict_of
from deploy_attn.plain_text import encodable
from deploy_attn.report_text import show_report as show_report
from deploy_attn.sweeping.text import show_sweep as show_sweep
from deploy_attn.tuning import text as tune_text
from deploy_attn.verdict_text import CHECK_COLUMNS, cell, check_cells, mark_of

if TYPE_CHECKING:
    from deploy_attn.benching.bench import BenchReport
    from deploy_attn.bundling import BundleReport
    from deploy_attn.doctor import DoctorReport
    from deploy_attn.engines.build import BuildReport
    from deploy_attn.engines.verdict import Verdict
    from deploy_attn.export.linting.lint import LintReport
    from deploy_attn.export.precision import PrecisionPlan
    from deploy_attn.exporting import ExportReport
    from deploy_attn.html_report.page import PageReport
    from deploy_attn.jetson.metrics import Comparison
    from deploy_attn.tax import TaxReport
    from deploy_attn.tuning.tune import Tuning

_SHOWN_REASONS = 12
_OPEN = MappingProxyType({"batch": "B", "height": "H", "width": "W"})


def show_export(report: ExportReport) -> None:
    """What was replaced under which proof, the plan, the verdict, and where it all lies."""
    console = _console()
    manifest = report.manifest
    console.print(
        f"[bold]{escape(manifest['name'])}[/bold]  {escape(_inputs(manifest))}  -> {manifest['target']}, "
        f"opset {manifest['opset']}, IR {manifest['ir_version']}",
        soft_wrap=True,
    )
    for line in finding_groups(report.findings):
        console.print(line, soft_wrap=True)
    if not report.findings:
        console.print("no attention module found; the network is exported as it is")
    for note in report.notes:
        console.print(f"[yellow]note[/yellow]  {escape(note)}", soft_wrap=True)
    if report.plan is not None:
        _show_plan(console, report.plan)
        _show_plain_half(console, report)
    if report.forms is not None:
        _show_rows(console, tune_text.FORM_COLUMNS, tune_text.form_rows(report.forms))
        for line in tune_text.form_lines(report.forms):
            console.print(escape(line), soft_wrap=True)
    if report.tuning is not None:
        _show_settings(console, report.tuning)
    show_verdict(report.verdict)
    _show_lint(console, report.lint)
    console.print(f"artifact: {escape(str(report.folder))}", soft_wrap=True)


def show_verdict(verdict: Verdict) -> None:
    """A row for each check, then PASS or FAIL."""
    console = _console()
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading, justify in CHECK_COLUMNS.items():
        table.add_column(heading, justify=justify)
    table.add_column("")
    for check in verdict.checks:
        table.add_row(*check_cells(check), mark_of(check.passed))
    console.print(table)
    for check in verdict.checks:
        if check.precision == "fp32" and check.tolerance.rms_relative > TOLERANCES["fp32"].rms_relative:
            console.print(f"{check.graph}, {check.case}: {escape(check.tolerance.reason)}", soft_wrap=True)
        if not check.passed:
            console.print(f"[red]{cell(failure(check))}[/red]", soft_wrap=True)
    _show_outcome(console, verdict)


def _show_outcome(console: Console, verdict: Verdict) -> None:
    conditions = f"{verdict.conditions.get('engine')} {verdict.conditions.get('version')}"
    mark = "[bold green]PASS[/bold green]" if verdict.passed else "[bold red]FAIL[/bold red]"
    passed = sum(check.passed for check in verdict.checks)
    tuned = ", with the settings that were tuned for it" if verdict.conditions.get("settings") else ""
    console.print(f"{mark}  {passed} of {len(verdict.checks)} checks hold in {conditions}{tuned}", soft_wrap=True)


def show_build(report: BuildReport) -> None:
    """What the engine is, what its kernels move, and where it lies."""
    console = _console()
    console.print(f"[bold]{escape(build_text.heading(report))}[/bold]", soft_wrap=True)
    for line in filter(None, (*build_text.shapes(report), build_text.figures(report))):
        console.print(escape(line), soft_wrap=True)
    table = Table(box=box.SIMPLE, pad_edge=False)
    for title, width in build_text.layer_columns(report).items():
        justify: Literal["left", "right"] = "right" if title in ("reads", "writes") else "left"
        table.add_column(title, justify=justify, no_wrap=True, min_width=width)
    for row in build_text.layer_rows(report):
        table.add_row(*map(escape, row))
    if table.rows:
        console.print(table)
    manifest = report.engine_file.with_suffix(".json")
    if build_text.unshown_layers(report):
        console.print(f"  ... and {build_text.unshown_layers(report)} more, in {escape(manifest.name)}")
    for warning in (*report.notes, *report.warnings):
        console.print(f"[yellow]note[/yellow]  {escape(warning)}", soft_wrap=True)
    console.print(f"engine: {escape(str(report.engine_file))}", soft_wrap=True)


def show_bench(report: BenchReport) -> None:
    """A row for each comparison, what may be claimed of it, and under which conditions."""
    console = _console()
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in bench_text.COLUMNS:
        table.add_column(heading, justify="left" if heading == "what" else "right", overflow="fold")
    for record in report.records:
        for row in bench_text.rows(record):
            table.add_row(*map(cell, row))
        table.add_section()
    if report.records:
        console.print(table)
    for line in bench_text.lines(report):
        console.print(cell(line), soft_wrap=True)


def show_bundle(report: BundleReport) -> None:
    """What went into the capsule, how large it is, and what to do with it."""
    console = _console()
    for line in bundle_text.lines(report):
        console.print(escape(line), soft_wrap=True)


def show_tuning(tuning: Tuning) -> None:
    """A row for all that was tried, then what stands, and whether the artifact holds with it."""
    console = _console()
    _show_settings(console, tuning)
    _show_outcome(console, tuning.verdict)


def _show_settings(console: Console, tuning: Tuning) -> None:
    _show_rows(console, tune_text.SETTING_COLUMNS, tune_text.setting_rows(tuning))
    for line in tune_text.setting_lines(tuning):
        console.print(escape(line), soft_wrap=True)


def _show_rows(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in columns:
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(escape, row))
    if rows:
        console.print(table)


def show_tax(report: TaxReport) -> None:
    """A row for each block, one for the network, and what a reader must know of them."""
    console = _console()
    table = Table(box=box.SIMPLE, pad_edge=False)
    for index, heading in enumerate(tax_text.COLUMNS):
        table.add_column(heading, justify="left" if index < tax_text.WORDS else "right")
    for cost in (*report.blocks, report.total):
        table.add_row(*map(escape, tax_text.row(cost)), end_section=cost is report.blocks[-1])
    console.print(table)
    for line in tax_text.lines(report):
        console.print(escape(line), soft_wrap=True)


def show_page(report: PageReport) -> None:
    """Where the page lies and whether all on it holds; without a file, its text."""
    if report.file is None:
        sys.stdout.write(encodable(report.text, sys.stdout.encoding))
        return
    mark = "[bold green]PASS[/bold green]" if report.passed else "[bold red]FAIL[/bold red]"
    artifacts = f"{len(report.artifacts)} artifact{'s' if len(report.artifacts) != 1 else ''}"
    _console().print(f"{mark}  page of {artifacts}: {cell(str(report.file))}", soft_wrap=True)


def show_doctor(report: DoctorReport) -> None:
    """What is here, what each job lacks, and what to do about it."""
    console = _console()
    table = Table(box=box.SIMPLE, pad_edge=False, show_header=False)
    for name, value in report.found.items():
        table.add_row(name, escape(value))
    console.print(table)
    for job in report.jobs:
        mark = "[green]ready[/green]  " if not job.missing else "[yellow]missing[/yellow]"
        lacking = "" if not job.missing else f": {'; '.join(job.missing)}"
        console.print(f"{mark}  {job.name}{escape(lacking)}", soft_wrap=True)
    for problem in report.problems:
        console.print(f"[bold red]problem[/bold red]  {escape(problem)}", soft_wrap=True)


def _console() -> Console:
    """Colours on a terminal only; piped tables keep their columns whole."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    return console


def _inputs(manifest: Mapping[str, Any]) -> str:
    """The shape of the input, or every input by name."""
    if "input" in manifest:
        return _shape(manifest["input"]["shape"])
    return ", ".join(f"{name} {_shape(found['shape'])}" for name, found in manifest["inputs"].items())


def _shape(extents: Sequence[int | str]) -> str:
    return "x".join(_OPEN.get(str(extent), str(extent)) for extent in extents)


def _show_lint(console: Console, report: LintReport) -> None:
    """What the target would make of the written graphs; one line where it takes them as they are."""
    for line in finding_lines(report.findings, with_graph=len(report.graphs) > 1):
        console.print(escape(line), soft_wrap=True)
    console.print(f"lint: {escape(verdict_of(report))}", soft_wrap=True)


def _show_plan(console: Console, plan: PrecisionPlan) -> None:
    console.print(f"FP16 plan: {plan.count('fp16')} nodes in FP16, {plan.count('fp32')} kept in FP32")
    kept = [node for node in plan.nodes if node.precision == "fp32"]
    for node in kept[:_SHOWN_REASONS]:
        console.print(f"  FP32  {escape(node.node)}: {escape(node.reason)}", soft_wrap=True)
    if len(kept) > _SHOWN_REASONS:
        console.print(f"  ... and {len(kept) - _SHOWN_REASONS} more, in precision_plan.json")


def _show_plain_half(console: Console, report: ExportReport) -> None:
    """What the plan bought: the same graph with every node in FP16, beside the planned one, both rounded everywhere."""
    planned = {
        (check.case, check.output): check.comparison
        for check in report.verdict.checks
        if check.bracket == "pessimistic"
    }
    console.print("  RMS relative, rounded at every FP16 node:")
    for case, outputs in report.plain_half.items():
        for name, plain in outputs.items():
            with_plan = _rounded(planned.get((case, name)))
            console.print(f"    {case}, {name}: {_rounded(plain)} in plain half, {with_plan} with the plan")


def _rounded(found: Comparison | None) -> str:
    if found is None:
        return "not run"
    return f"{found.non_finite} values NaN or Inf" if found.non_finite else f"{found.rms_relative:.1e}"
