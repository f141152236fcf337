"""What was found in a network, for a person: modules of one kind and one fate in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy_attn.rewriting.finding import Finding

_SHOWN_PATHS = 3


def finding_groups(findings: Sequence[Finding]) -> Iterator[str]:
    """A line, in rich's markup, for all findings that share mechanism, class and reason."""
    from rich.markup import escape

    groups: dict[tuple[str, str, str | None], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.recognised_as, finding.class_name, finding.reason), []).append(finding)
    for (mechanism, class_name, reason), alike in groups.items():
        count = "" if len(alike) == 1 else f"{len(alike)} x "
        what = f"{count}{mechanism} at {_places(alike)} ({class_name})"
        if alike[0].replaced:
            yield f"[green]replaced[/green]  {escape(what)}: {_proof(alike)}"
        else:
            yield f"[yellow]left alone[/yellow]  {escape(what)}: {escape(reason or '')}"


def _places(findings: Sequence[Finding]) -> str:
    """Where they stand; of many the first ones and the last."""
    places = [", ".join(path or "the module itself" for path in finding.paths) for finding in findings]
    if len(places) > _SHOWN_PATHS + 1:
        places = [*places[:_SHOWN_PATHS], "...", places[-1]]
    return ", ".join(places)


def _proof(findings: Sequence[Finding]) -> str:
    certificates = [finding.certificate for finding in findings if finding.certificate is not None]
    trials = sum(len(certificate.trials) for certificate in certificates)
    worst = max((certificate.worst_error for certificate in certificates), default=float("nan"))
    return f"{trials} trials in float64, worst error {worst:.1e}"
