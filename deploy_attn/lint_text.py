"""What lint found, as plain text for a person: worst first, equal findings together, the verdict last."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_attn.answering import answer
from deploy_attn.plain_text import encodable, plain

if TYPE_CHECKING:
    from deploy_attn.export.linting.finding import Finding
    from deploy_attn.export.linting.lint import LintReport
    from deploy_attn.export.linting.memory import Memory

_EFFECTS = ("refused", "wrong result", "slow", "risky")
_SHOWN_NODES = 8


def answer_lint(model: Path, target: str, as_json: bool) -> int:
    """Lints, prints and gives the exit code: 0 nothing would go wrong, 1 something would, 2 no answer."""

    def job() -> LintReport:
        from deploy_attn.export.linting.lint import lint

        return lint(model, target)

    return answer(job, show_lint, as_json)


def show_lint(report: LintReport) -> None:
    """Prints a report; what the terminal's encoding lacks is written as its escape."""
    text = "\n".join(_lines(report))
    sys.stdout.write(encodable(text, sys.stdout.encoding) + "\n")
    sys.stdout.flush()


def verdict_of(report: LintReport) -> str:
    """The closing line."""
    errors = sum(finding.is_error for finding in report.findings)
    others = len(report.findings) - errors
    if errors:
        more = f", {_counted(others, 'warning')}" if others else ""
        return f"FAIL  {_counted(errors, 'error')}{more}: {report.target} would refuse or misread this"
    if others:
        return f"PASS  no error, {_counted(others, 'warning')} for {report.target}"
    return f"PASS  nothing found for {report.target}"


def finding_lines(findings: Sequence[Finding], with_graph: bool) -> Iterator[str]:
    """The findings by effect, those that differ in their node only under one reason."""
    for effect in _EFFECTS:
        chosen = [finding for finding in findings if finding.effect == effect]
        if chosen:
            yield f"{effect} ({len(chosen)})"
        groups: dict[tuple[str, ...], list[Finding]] = {}
        for finding in chosen:
            key = (finding.graph, finding.rule, finding.op_type, finding.why, finding.remedy)
            groups.setdefault(key, []).append(finding)
        for (graph, rule, op_type, why, remedy), group in groups.items():
            where = f"{plain(graph)}: " if with_graph else ""
            yield f"  {where}{_nodes(group)}{f'  {plain(op_type)}' if op_type else ''}  [{rule}]"
            yield f"    why: {plain(why)}"
            yield f"    do:  {plain(remedy)}"


def _lines(report: LintReport) -> Iterator[str]:
    yield f"{plain(report.model)}  for {plain(report.target)}"
    for graph in report.graphs:
        yield f"{plain(graph.file)}: opset {graph.opset}, IR {graph.ir_version}, {_counted(graph.nodes, 'node')}"
        if graph.memory is not None:
            yield f"  memory: {_memory(graph.memory)}"
    yield ""
    if report.findings:
        yield from finding_lines(report.findings, with_graph=len(report.graphs) > 1)
        yield ""
    yield verdict_of(report)


def _nodes(group: Sequence[Finding]) -> str:
    names = [plain(finding.node) or "the model" for finding in group]
    more = f" and {len(names) - _SHOWN_NODES} more" if len(names) > _SHOWN_NODES else ""
    return ", ".join(names[:_SHOWN_NODES]) + more


def _memory(memory: Memory) -> str:
    activations = memory.own_bytes - memory.weights_bytes
    return (
        f"{_mib(memory.weights_bytes)} of weights, {_mib(activations)} of activations at once; with start-up and "
        f"workspace {_mib(memory.needed_bytes)} of {_mib(memory.available_bytes)} ({plain(memory.note)})"
    )


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.1f} MiB"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
