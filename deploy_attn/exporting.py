"""The main job: from a name to a verified artifact."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy_attn.engines.parity import verify
from deploy_attn.engines.target import Target, load_target
from deploy_attn.engines.verdict import Verdict
from deploy_attn.export.artifact import check_destination, staged_folder, write_artifact
from deploy_attn.export.checkpoint import load_checkpoint
from deploy_attn.export.inputs import larger_map, noise_inputs, npy_shape, parity_input, twice_the_batch
from deploy_attn.export.linting.lint import LintReport, lint_for
from deploy_attn.export.onnx_from_module import GraphRequest, checked, onnx_from_module
from deploy_attn.export.precision import PrecisionPlan, plain_half_plan
from deploy_attn.export.reference import check_network, fp32_errors, npz_from_cases, reference_cases
from deploy_attn.export.refine import plan_for, rounded_comparisons
from deploy_attn.export.simplify import simplify
from deploy_attn.export.typed import typed_from_plan
from deploy_attn.jetson.artifact import Case
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.metrics import Comparison, as_dict
from deploy_attn.manifest import manifest_of_request
from deploy_attn.request import ExportRequest
from deploy_attn.sources import ShapeRequest, Source, find_source, own_traceback

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from deploy_attn.rewriting.rewrite import Finding, Rewrite

    Array = np.ndarray[Any, Any]

PlainHalf = Mapping[str, Mapping[str, Comparison]]


@dataclass(frozen=True)
class ExportReport:
    """What was written, where, and whether it holds.

    `plain_half` is what the same graph would give without its plan, every node
    in FP16, by case and output; empty without --fp16. `lint` is what the
    target would make of the written graphs.
    """

    folder: Path
    manifest: Mapping[str, Any]
    findings: tuple[Finding, ...]
    plan: PrecisionPlan | None
    plain_half: PlainHalf
    verdict: Verdict
    lint: LintReport

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
            "precision_plan": None if self.plan is None else self.plan.as_dict(),
            "plain_half": _plain_half_as_dict(self.plain_half),
            "verdict": self.verdict.as_dict(),
            "lint": self.lint.as_dict(),
        }


def export_artifact(request: ExportRequest) -> ExportReport:
    """Builds, proves, exports, verifies and lints; writes the artifact whole or not at all.

    An artifact whose verdict or lint is a failure is written too, as evidence.

    Raises:
        BadRequest: the request cannot be served; nothing was written.
        DeployAttnError: the network cannot be exported; nothing was written.
    """
    target = load_target(request.target)
    source = find_source(request.name, _shapes(request), request.options)
    folder = request.output or Path("out") / source.name
    check_destination(folder, request.force)
    inputs = _inputs(request, source)
    network = _built(source, request)
    rewritten, cases = _proven(network, inputs, source, _Wanted(target.family, request.dynamic_size))
    graphs = _graphs(rewritten, cases, request, target)
    files = {**graphs.files, "reference.npz": npz_from_cases(cases), "certificate.json": _json(rewritten.as_dict())}
    manifest = {
        **manifest_of_request(request, source, target),
        "graphs": list(graphs.listed),
        "simplifier": graphs.simplifier,
        "cases": [case.name for case in cases],
        "fp32_errors": fp32_errors(network, cases),
    }
    with staged_folder(folder, request.force) as staging:
        written = write_artifact(staging, files, manifest)
        verdict = verify(staging)
        linted = replace(lint_for(staging, target), model=str(folder))
    return ExportReport(folder, written, rewritten.findings, graphs.plan, graphs.plain_half, verdict, linted)


@dataclass(frozen=True)
class _Graphs:
    """The graphs of an artifact, as the bytes of its files."""

    files: Mapping[str, bytes]
    listed: tuple[Mapping[str, str], ...]
    plan: PrecisionPlan | None
    plain_half: PlainHalf
    simplifier: str


class _Wanted(NamedTuple):
    """Which export forms a request asks for."""

    family: str
    dynamic_size: bool


def _shapes(request: ExportRequest) -> ShapeRequest:
    given = None if request.input_file is None else npy_shape(request.input_file)
    return ShapeRequest(request.shape, request.channels, given, request.dynamic_size)


def _inputs(request: ExportRequest, source: Source) -> dict[str, Array]:
    """The parity inputs, by the name of their case."""
    if request.input_file is not None:
        inputs = {"file": parity_input(request.input_file, source.shape)}
    else:
        inputs = noise_inputs(source.shape, request.seed, severe=source.file is None)
    if request.dynamic_batch:
        inputs["larger_batch"] = twice_the_batch(next(iter(inputs.values())))
    if request.dynamic_size:
        # A network may need its extents to be multiples of its strides; a catalogue module does not.
        rows, columns = (2, 3) if source.file is None else source.shape[2:]
        inputs["larger_map"] = larger_map(next(iter(inputs.values())), rows, columns)
    return inputs


def _built(source: Source, request: ExportRequest) -> nn.Module:
    import torch

    torch.manual_seed(request.seed)
    network = source.build()
    if request.checkpoint is not None:
        load_checkpoint(network, request.checkpoint)
    elif source.file is None:
        from deploy_attn.modules.disturb import disturb_constants

        disturb_constants(network)  # a module that starts as the identity would prove nothing
    return network.float().eval()


def _proven(
    network: nn.Module, inputs: Mapping[str, Array], source: Source, wanted: _Wanted
) -> tuple[Rewrite, list[Case]]:
    """The rewritten network, and the parity cases from the reference, both in float64."""
    import torch

    from deploy_attn.rewriting.rewrite import rewrite

    with _its_own_errors(source, "does not run"):
        check_network(network, next(iter(inputs.values())))
    with _its_own_errors(source, "runs in float32 but not in float64, which proofs need,"):
        cases = reference_cases(network, inputs)
    rewritten = rewrite(network, torch.from_numpy(next(iter(inputs.values()))), wanted.family, wanted.dynamic_size)
    if source.file is None and not rewritten.findings[0].replaced:
        raise DeployAttnError(f"{source.name} has no proven export form: {rewritten.findings[0].reason}")
    return rewritten, cases


@contextlib.contextmanager
def _its_own_errors(source: Source, what: str) -> Iterator[None]:
    """Whatever a user's network raises becomes a message with its traceback, without our frames."""
    try:
        yield
    except DeployAttnError:
        raise
    except Exception as error:  # a network may raise anything
        raise BadRequest(
            f"{source.name} {what} on an input of {'x'.join(map(str, source.shape))}:\n"
            f"{own_traceback(error, source.file)}"
        ) from error


def _graphs(rewritten: Rewrite, cases: list[Case], request: ExportRequest, target: Target) -> _Graphs:
    import torch

    wanted = GraphRequest(target.opset, target.ir_version, request.dynamic_batch, request.dynamic_size)
    with torch.inference_mode():
        first = torch.from_numpy(next(iter(cases[0].inputs.values())))
        with _left_alone_said(rewritten):
            traced = onnx_from_module(rewritten.model.float(), first, wanted)
    simplified = simplify(traced, cases[0].inputs, wanted)
    files = {"model.onnx": simplified.model.SerializeToString()}
    listed = [{"file": "model.onnx", "precision": "fp32"}]
    plan, plain_half = None, {}
    if request.fp16:
        plan = plan_for(simplified.model, cases)
        plain_half = rounded_comparisons(simplified.model, plain_half_plan(simplified.model), cases)
        files["model.fp16.onnx"] = checked(typed_from_plan(simplified.model, plan), wanted).SerializeToString()
        files["precision_plan.json"] = _json({**plan.as_dict(), "plain_half": _plain_half_as_dict(plain_half)})
        listed.append({"file": "model.fp16.onnx", "precision": "fp16"})
    return _Graphs(files, tuple(listed), plan, plain_half, simplified.outcome)


@contextlib.contextmanager
def _left_alone_said(rewritten: Rewrite) -> Iterator[None]:
    """A module that was not replaced may be why the exporter refuses."""
    try:
        yield
    except BadRequest as error:
        left = [f"{finding.recognised_as}: {finding.reason}" for finding in rewritten.findings if not finding.replaced]
        if not left:
            raise
        raise BadRequest(f"{error}\nLeft as it was: {'; '.join(left)}.") from error


def _plain_half_as_dict(plain_half: PlainHalf) -> dict[str, dict[str, dict[str, object]]]:
    return {
        case: {name: as_dict(comparison) for name, comparison in outputs.items()}
        for case, outputs in plain_half.items()
    }


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode("utf-8")
