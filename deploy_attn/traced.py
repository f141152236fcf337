"""A network run, proven, rewritten and traced: its FP32 graph, and all that PyTorch is needed to know of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deploy_attn.export.feeds import OPEN_CASES
from deploy_attn.export.functions.finding import FunctionFinding
from deploy_attn.export.functions.mode import exact_functions
from deploy_attn.export.functions.proof import prove_functions
from deploy_attn.export.functions.rule import Aim
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.open_axes import check_open_axes, frozen_lines
from deploy_attn.export.reference import FirstRuns, check_network, fp32_errors, reference_cases
from deploy_attn.jetson.artifact import Case
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.subject import Subject

if TYPE_CHECKING:
    import onnx

    from deploy_attn.rewriting.finding import Finding
    from deploy_attn.rewriting.replacement import Wanted
    from deploy_attn.rewriting.rewrite import Rewrite

Functions = tuple[FunctionFinding, ...]

_COPY_HINT = "Tensors that forward makes should take the type of its input, as in torch.ones_like(x)."


@dataclass(frozen=True)
class Traced:
    """A network's graph, and what is known of the network.

    Attributes:
        model: the graph as the exporter gives it, in FP32.
        names: of its inputs.
        cases: the parity cases, computed in float64.
        findings: what was found of attention.
        certificate: what was proven, as JSON.
        notes: what of the network the graph does not have.
        fp32_errors: how far the network itself is from float64 in FP32.
    """

    model: onnx.ModelProto
    names: tuple[str, ...]
    cases: tuple[Case, ...]
    findings: tuple[Finding, ...]
    certificate: Mapping[str, Any]
    notes: tuple[str, ...]
    fp32_errors: Mapping[str, Any]


def traced_from_subject(
    subject: Subject, family: str, wanted: GraphRequest, chosen: Mapping[str, str] | None = None
) -> Traced:
    """Runs, proves, rewrites and traces a network.

    Args:
        family: the engine's, `cpu` or `gpu`.
        chosen: names of forms, by path, for the places that are not to have the family's.

    Raises:
        BadRequest: it does not run, does not copy, or has no graph as it is wanted.
        DeployAttnError: it is a catalogue module whose form could not be proven.
    """
    from deploy_attn.rewriting.replacement import Wanted
    from deploy_attn.rewriting.semantics import settled

    first = subject.call.arguments(next(iter(subject.feeds.values())))
    with subject.own_errors("does not run"):
        runs = check_network(subject.network, first)
    network, aliasing = settled(subject.network, first, subject.semantics)
    subject = replace(subject, network=network)
    subject.check_other_extents()
    with subject.own_errors("runs in float32 but not in float64, which proofs need,", hint=_COPY_HINT):
        cases = reference_cases(subject.network, subject.feeds, subject.call)
    errors = fp32_errors(subject.network, cases, subject.call)
    rewritten = replace(_rewritten(subject, Wanted(family, wanted.dynamic_size, chosen or {})), aliasing=aliasing)
    functions = _functions(rewritten, subject, wanted)
    model = _traced(rewritten, functions, subject, wanted, cases)
    notes = (*_notes(runs), *(one.message for one in aliasing if not one.asks))
    certificate = {**rewritten.as_dict(), "functions": [function.as_dict() for function in functions]}
    return Traced(model, subject.call.names, tuple(cases), rewritten.findings, certificate, notes, errors)


def _rewritten(subject: Subject, forms: Wanted) -> Rewrite:
    import torch

    from deploy_attn.rewriting.prepare import prepared
    from deploy_attn.rewriting.rewrite import rewrite_settled

    arguments = subject.call.example.as_type(torch.float64)
    rewritten = rewrite_settled(prepared(subject.network), arguments, forms)
    if subject.source.file is None and not rewritten.findings[0].replaced:
        raise DeployAttnError(f"{subject.source.name} has no proven export form: {rewritten.findings[0].reason}")
    return rewritten


def _functions(rewritten: Rewrite, subject: Subject, wanted: GraphRequest) -> Functions:
    """The exact forms of what the rewritten network calls, proven in float64."""
    import torch

    arguments = subject.call.example.as_type(torch.float64)
    return prove_functions(rewritten.model.double(), arguments, _aim(wanted))


def _aim(wanted: GraphRequest) -> Aim:
    return Aim(wanted.opset, wanted.dynamic_size)


def _traced(
    rewritten: Rewrite, functions: Functions, subject: Subject, wanted: GraphRequest, cases: list[Case]
) -> onnx.ModelProto:
    import torch

    with (
        torch.inference_mode(),
        _left_alone_said(rewritten, functions),
        frozen_lines() as frozen,
        exact_functions(functions, _aim(wanted)),
    ):
        model = onnx_from_module(rewritten.model.float(), subject.call, wanted)
    check_open_axes(model, [case for case in cases if case.name in OPEN_CASES], frozen)
    return model


def _notes(runs: FirstRuns) -> tuple[str, ...]:
    dropped = (f"The network returns None as {name!r}; the graph has no such output." for name in runs.dropped)
    return (*runs.left_out, *dropped)


@contextlib.contextmanager
def _left_alone_said(rewritten: Rewrite, functions: Functions) -> Iterator[None]:
    """A module or a call that was not replaced may be why the exporter refuses."""
    try:
        yield
    except BadRequest as error:
        left = [f"{finding.recognised_as}: {finding.reason}" for finding in rewritten.findings if not finding.replaced]
        left += [f"{function.call}: {function.reason}" for function in functions if not function.replaced]
        if not left:
            raise
        raise BadRequest(f"{error}\nLeft as it was: {'; '.join(left)}.") from error
