"""Replaces the attention of a network by export forms, each under a certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import Arguments
from deploy_attn.export.certificate import Trial
from deploy_attn.export.results import output_tensors
from deploy_attn.rewriting.aliasing import AliasingFinding, find_aliasing
from deploy_attn.rewriting.families import matches_of
from deploy_attn.rewriting.finding import Finding
from deploy_attn.rewriting.fit import Outcome, fit
from deploy_attn.rewriting.folding import fold
from deploy_attn.rewriting.observe import observe
from deploy_attn.rewriting.prepare import prepared, restored
from deploy_attn.rewriting.replacement import Candidate, Wanted, outcome_of
from deploy_attn.rewriting.semantics import released, with_semantics

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Rewrite:
    """A network with export forms, what was found on the way, and the trial of the whole in float64.

    `findings` are about attention, `folds` about the BatchNorms that went into the layer before them.
    """

    model: nn.Module
    findings: tuple[Finding, ...]
    folds: tuple[Finding, ...]
    whole: Trial
    aliasing: tuple[AliasingFinding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "network": self.whole.as_dict(),
            "modules": [finding.as_dict() for finding in self.findings],
            "folds": [finding.as_dict() for finding in self.folds],
            "aliasing": [finding.as_dict() for finding in self.aliasing],
        }


def rewrite(
    model: nn.Module,
    example: object,
    engine: str = "cpu",
    dynamic_size: bool = False,
    semantics: str | None = None,
) -> Rewrite:
    """Returns a copy of a network, in eval mode, with its attention in export form.

    Everything is proven in float64; the copy is then of the caller's type.
    Every recognised instance is replaced once, wherever it stands, if its
    equivalence certificate holds; the network's own activations at that place
    are among the inputs tried. What is inside a replaced module is not looked
    at. A replacement that does not fit its network is taken back. The caller's
    object is not touched.

    Args:
        model: the network; it may be an attention module itself.
        example: an input tensor, a tuple of the network's arguments, or a dict of its named ones.
        engine: the engine's family, `cpu` or `gpu`.
        dynamic_size: build forms that take any h and w.
        semantics: what writes in place mean where eager mode and exports disagree, `shift` or `smear`; the proofs,
            and `whole`, are against the network of this meaning.

    Raises:
        BadRequest: there is no tensor in the example, or a meaning must be chosen.
            What the network raises on the example goes through.
        DeployAttnError: the network differs from its own copy, so that nothing can be proven.
    """
    import torch

    arguments = Arguments.of(example).as_type(torch.float64)
    copy = prepared(model)
    aliasing = find_aliasing(copy, arguments)
    rewritten = rewrite_settled(with_semantics(copy, aliasing, semantics), arguments, Wanted(engine, dynamic_size))
    return replace(rewritten, model=restored(rewritten.model, model), aliasing=aliasing)


def rewrite_settled(reference: nn.Module, arguments: Arguments, wanted: Wanted) -> Rewrite:
    """`rewrite` of a prepared network in which every write has one meaning; the result stays in float64."""
    candidates = _candidates(reference)
    observed = observe(reference, [candidate.module for candidate in candidates], arguments)
    outcomes = _outcomes(candidates, observed.calls, wanted)
    fitted = fit(reference, outcomes, arguments, output_tensors(observed.returned))
    folded = fold(fitted.network, arguments)
    findings = tuple(outcome.finding for outcome in fitted.outcomes)
    return Rewrite(released(folded.network), findings, folded.findings, fitted.whole)


def _candidates(network: nn.Module) -> list[Candidate]:
    """Every instance with a reading, outer ones before what they hold."""
    paths: dict[nn.Module, tuple[str, ...]] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        paths[module] = (*paths.get(module, ()), path)
    found = [Candidate(module, places, tuple(matches_of(module))) for module, places in paths.items()]
    return [candidate for candidate in found if candidate.matches]


def _outcomes(
    candidates: list[Candidate], calls: Mapping[nn.Module, tuple[Arguments, ...]], wanted: Wanted
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    replaced: set[nn.Module] = set()
    for candidate in candidates:
        if candidate.module in replaced:
            continue
        outcome = outcome_of(candidate, calls[candidate.module], wanted)
        outcomes.append(outcome)
        if outcome.form is not None:
            replaced.update(candidate.module.modules())
    return outcomes
