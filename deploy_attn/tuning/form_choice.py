"""Export forms chosen by measurement, for every place of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.latency.machine import machine
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.rewriting.families import matches_of
from deploy_attn.rewriting.observe import observe
from deploy_attn.rewriting.prepare import prepared
from deploy_attn.rewriting.replacement import Candidate
from deploy_attn.rewriting.semantics import settled
from deploy_attn.tuning.form_contest import THREADS, Contest, FormPlan, Place, TriedForm
from deploy_attn.tuning.setting_search import ENGINE, Compare

if TYPE_CHECKING:
    from deploy_attn.engines.target import Target
    from deploy_attn.rewriting.finding import Finding
    from deploy_attn.subject import Subject


@dataclass(frozen=True)
class FormChoice:
    """Every form that was tried; `chosen` has those that are not the shipped ones, by path."""

    tried: tuple[TriedForm, ...]
    chosen: Mapping[str, str]
    conditions: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "engine": ENGINE,
            "tried": [one.as_dict() for one in self.tried],
            "conditions": dict(self.conditions),
        }


def check_tunable(target: Target) -> None:
    """Raises BadRequest for a target whose engine is not the one that `--tune` measures on."""
    if (target.engine, target.family) != (ENGINE, "cpu"):
        raise BadRequest(
            f"--tune measures in {ENGINE} on this machine's CPU, and what is fast there says nothing of {target.name} "
            f"({target.title}). Leave --tune out for the forms that are shipped for it, or choose "
            "--target onnxruntime-cpu."
        )


def choose_forms(subject: Subject, findings: Sequence[Finding], plan: FormPlan, compare: Compare) -> FormChoice:
    """Times the export forms of every replaced place, once for places of the same kind.

    A form that is faster than the shipped one by more than the control's error,
    and proven at each place, is chosen there; the shipped one stands otherwise.

    Args:
        subject: a network that was exported with the shipped forms.
        findings: of that export.
    """
    tried: list[TriedForm] = []
    chosen: dict[str, str] = {}
    for places in _kinds(subject, findings):
        contest = Contest(places, plan, compare)
        tried += contest.run()
        chosen.update(contest.chosen)
    conditions = {
        "engine": ENGINE,
        "version": OnnxRuntimeRunner(b"").conditions()["version"],
        "intra_op_threads": THREADS,
        "levels": "the faster of all and extended for each form",
        "cache": "hot",
        **machine(),
    }
    return FormChoice(tuple(tried), chosen, conditions)


def _kinds(subject: Subject, findings: Sequence[Finding]) -> list[list[Place]]:
    """The replaced places in the float64 reference, those of one kind together."""
    import torch

    first = subject.call.arguments(next(iter(subject.feeds.values())))
    reference = prepared(settled(subject.network, first, subject.semantics)[0])
    paths = {reference.get_submodule(finding.paths[0]): finding.paths for finding in findings if finding.replaced}
    calls = observe(reference, list(paths), subject.call.example.as_type(torch.float64)).calls
    kinds: dict[tuple[str, ...], list[Place]] = {}
    for module, where in paths.items():
        place = Place(Candidate(module, where, tuple(matches_of(module))), calls[module])
        kinds.setdefault(place.kind, []).append(place)
    return list(kinds.values())
