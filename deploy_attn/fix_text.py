"""What `lint --fix` did, as plain text for a person: the changes, what is left, the proof, the verdict last."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.lint_text import finding_lines
from deploy_attn.plain_text import encodable, plain

if TYPE_CHECKING:
    from deploy_attn.export.linting.fix import FixReport
    from deploy_attn.export.linting.proof import Proof

_SHOWN_NODES = 8


def show_fix(report: FixReport) -> None:
    """Prints a report; what the terminal's encoding lacks is written as its escape."""
    text = "\n".join(_lines(report))
    sys.stdout.write(encodable(text, sys.stdout.encoding) + "\n")
    sys.stdout.flush()


def _lines(report: FixReport) -> Iterator[str]:
    yield f"{plain(report.model)}  for {plain(report.target)}"
    yield ""
    if report.fixed:
        yield "fixed" if report.written else "has an exact rewrite"
        yield from _fixed_lines(report)
        yield ""
    if report.refused:
        yield "has no exact rewrite"
        for change in report.refused:
            yield f"  {plain(change.node) or 'the model'}  {change.op_type}: {plain(change.what)}".replace("  :", ":")
        yield ""
    if report.remaining:
        yield "lint finds in the copy:" if report.written else "lint finds:"
        yield from (f"  {line}" for line in finding_lines(report.remaining, with_graph=False))
        yield ""
    if report.proof is not None:
        yield from _proof_lines(report.proof)
    yield _verdict(report)


def _fixed_lines(report: FixReport) -> Iterator[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for item in report.fixed:
        groups.setdefault((item.rule, item.what), []).append(plain(item.node) or "the model")
    for (rule, what), nodes in groups.items():
        more = f" and {len(nodes) - _SHOWN_NODES} more" if len(nodes) > _SHOWN_NODES else ""
        yield f"  {', '.join(nodes[:_SHOWN_NODES])}{more}  [{rule}]: {plain(what)}"


def _proof_lines(proof: Proof) -> Iterator[str]:
    for trial in proof.trials:
        shapes = ", ".join(
            f"{plain(name)} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in trial.shapes.items()
        )
        outcome = "ok" if trial.error is None else f"WRONG, {plain(trial.error)}"
        allowed = f"{trial.rms_relative:.1e} of {trial.allowed.rms_relative:.0e} allowed"
        yield f"proof  {trial.name} ({shapes or 'no inputs'}): RMS relative {allowed}  {outcome}"


def _verdict(report: FixReport) -> str:
    if report.problem is not None:
        return f"FAIL  nothing is written: {plain(report.problem)}"
    if report.written is None:
        return "PASS  nothing is written: no finding has or needs an exact rewrite"
    trials = len(report.proof.trials) if report.proof else 0
    return f"PASS  {plain(str(report.written))}, equal to the original on {trials} sets of inputs in onnxruntime"
