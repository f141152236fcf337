"""The main job: from a name to a verified artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.latency.protocol import Progress
from deploy_attn.engines.parity import verify
from deploy_attn.engines.settings_file import settings_file
from deploy_attn.engines.target import load_target
from deploy_attn.engines.verdict import Verdict
from deploy_attn.export.artifact import check_destination, staged_folder, write_artifact
from deploy_attn.export.linting.lint import LintReport, lint_for
from deploy_attn.export.onnx_from_module import GraphRequest, checked
from deploy_attn.export.precision import PrecisionPlan, plain_half_plan
from deploy_attn.export.reference import check_network, npz_from_cases
from deploy_attn.export.refine import MODULE, NETWORK, Aim, plan_for, rounded_comparisons
from deploy_attn.export.simplify import simplify
from deploy_attn.export.typed import typed_from_plan
from deploy_attn.jetson.errors import DeployAttnError
from deploy_attn.jetson.metrics import Comparison, as_dict
from deploy_attn.manifest import manifest_of_request, tolerances_of
from deploy_attn.request import ExportRequest
from deploy_attn.sources import Source
from deploy_attn.subject import source_of, subject_of
from deploy_attn.traced import Traced, traced_from_subject
from deploy_attn.tuning.form_choice import FormChoice, check_tunable, choose_forms
from deploy_attn.tuning.form_contest import FormPlan
from deploy_attn.tuning.tune import TuneOptions, Tuning, comparing, tune

if TYPE_CHECKING:
    from deploy_attn.rewriting.finding import Finding
    from deploy_attn.tax import TaxOptions, TaxReport

PlainHalf = Mapping[str, Mapping[str, Comparison]]


@dataclass(frozen=True)
class ExportReport:
    """What was written, where, and whether it holds.

    `plain_half` is what the same graph would give without its plan, every node
    in FP16, by case and output; empty without --fp16. `lint` is what the
    target would make of the written graphs. `notes` say what of the network
    the graphs do not have: lines that can only raise, warn or print, outputs of None.
    `forms` and `tuning` are what was measured on this machine; None without
    --tune, and `tuning` too where the artifact does not hold.
    """

    folder: Path
    manifest: Mapping[str, Any]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    plan: PrecisionPlan | None
    plain_half: PlainHalf
    verdict: Verdict
    lint: LintReport
    forms: FormChoice | None = None
    tuning: Tuning | None = None

    @property
    def passed(self) -> bool:
        """Every parity check holds, and the target would neither refuse nor misread a graph."""
        return self.verdict.passed and self.lint.passed

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "folder": str(self.folder),
            "manifest": dict(self.manifest),
            "findings": [finding.as_dict() for finding in self.findings],
            "notes": list(self.notes),
            "precision_plan": None if self.plan is None else self.plan.as_dict(),
            "plain_half": _plain_half_as_dict(self.plain_half),
            "verdict": self.verdict.as_dict(),
            "lint": self.lint.as_dict(),
            "forms": None if self.forms is None else self.forms.as_dict(),
            "tuning": None if self.tuning is None else self.tuning.as_dict(),
        }


def export_artifact(request: ExportRequest, on_progress: Progress | None = None) -> ExportReport:
    """Builds, proves, exports, verifies and lints; writes the artifact whole or not at all.

    An artifact whose verdict or lint is a failure is written too, as evidence.

    Args:
        on_progress: told `phase`, `step` and `steps` of each measurement that `request.tune` takes.

    Raises:
        BadRequest: the request cannot be served; nothing was written.
        DeployAttnError: the network cannot be exported; nothing was written.
    """
    target = load_target(request.target)
    source = source_of(request)
    folder = request.output or Path("out") / source.name
    check_destination(folder, request.force)
    if request.tune:
        check_tunable(target)
    wanted = GraphRequest(target.opset, target.ir_version, request.dynamic_batch, request.dynamic_size)
    plan = FormPlan(target.family, wanted, tolerances_of(source)["fp32"])
    traced, forms = _traced(request, source, plan, on_progress)
    aim = MODULE if source.file is None else NETWORK
    graphs = _graphs(traced, wanted, aim if request.fp16 else None)
    files = {
        **graphs.files,
        "reference.npz": npz_from_cases(traced.cases),
        "certificate.json": _json(traced.certificate),
        **({} if forms is None else {"forms.json": _json(forms.as_dict())}),
    }
    manifest = {
        **manifest_of_request(request, source, target, dict(zip(traced.names, source.inputs))),
        "graphs": list(graphs.listed),
        "simplifier": graphs.simplifier,
        "cases": [case.name for case in traced.cases],
        "fp32_errors": traced.fp32_errors,
        **({"notes": list(traced.notes)} if traced.notes else {}),
    }
    with staged_folder(folder, request.force) as staging:
        written = write_artifact(staging, files, manifest)
        verdict, tuning = verify(staging), None
        if request.tune and verdict.passed:
            tuning = replace(tune(staging, on_progress=on_progress), file=settings_file(folder))
            verdict = tuning.verdict
        linted = replace(lint_for(staging, target), model=str(folder))
    told = (traced.findings, traced.notes, graphs.plan, graphs.plain_half)
    return ExportReport(folder, written, *told, verdict, linted, forms, tuning)


def _traced(
    request: ExportRequest, source: Source, plan: FormPlan, on_progress: Progress | None
) -> tuple[Traced, FormChoice | None]:
    """The network with the shipped forms; with `tune`, with those that are faster here, and what was measured."""
    subject = subject_of(request, source)
    traced = traced_from_subject(subject, plan.family, plan.request)
    if not request.tune:
        return traced, None
    forms = choose_forms(subject, traced.findings, plan, comparing(TuneOptions().seconds, on_progress))
    if forms.chosen:
        traced = traced_from_subject(subject, plan.family, plan.request, forms.chosen)
    lost = [one for one in traced.findings if not one.replaced and forms.chosen.keys() & set(one.paths)]
    if lost:
        raise DeployAttnError(
            f"A form that is faster at {lost[0].paths[0]} does not hold in the whole network: {lost[0].reason}. "
            "Export without --tune."
        )
    return traced, forms


def tax_of(request: ExportRequest, options: TaxOptions) -> TaxReport:
    """What the attention of a network costs.

    Raises:
        BadRequest: as `export_artifact`, or there is no attention to measure.
    """
    from deploy_attn.tax import attention_tax

    subject = subject_of(request, source_of(request))
    with subject.own_errors("does not run"):
        check_network(subject.network, subject.call.example)
    return attention_tax(subject.network, subject.call.example, options, subject.source.name, request.semantics)


@dataclass(frozen=True)
class _Graphs:
    """The graphs of an artifact, as the bytes of its files."""

    files: Mapping[str, bytes]
    listed: tuple[Mapping[str, str], ...]
    plan: PrecisionPlan | None
    plain_half: PlainHalf
    simplifier: str


def _graphs(traced: Traced, wanted: GraphRequest, aim: Aim | None) -> _Graphs:
    """Both graphs, or without an aim the FP32 one."""
    cases = traced.cases
    simplified = simplify(traced.model, cases[0].inputs, wanted)
    files = {"model.onnx": simplified.model.SerializeToString()}
    listed = [{"file": "model.onnx", "precision": "fp32"}]
    plan, plain_half = None, {}
    if aim is not None:
        plan = plan_for(simplified.model, cases, aim)
        plain_half = rounded_comparisons(simplified.model, plain_half_plan(simplified.model), cases)
        files["model.fp16.onnx"] = checked(typed_from_plan(simplified.model, plan), wanted).SerializeToString()
        files["precision_plan.json"] = _json({**plan.as_dict(), "plain_half": _plain_half_as_dict(plain_half)})
        listed.append({"file": "model.fp16.onnx", "precision": "fp16"})
    return _Graphs(files, tuple(listed), plan, plain_half, simplified.outcome)


def _plain_half_as_dict(plain_half: PlainHalf) -> dict[str, dict[str, dict[str, object]]]:
    return {
        case: {name: as_dict(comparison) for name, comparison in outputs.items()}
        for case, outputs in plain_half.items()
    }


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode("utf-8")
