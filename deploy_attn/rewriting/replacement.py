"""One recognised instance: its readings tried in turn, and what becomes of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from deploy_attn.export.arguments import Arguments
from deploy_attn.export.certificate import Certificate, Claim, prove_claim
from deploy_attn.export.layout import map_shape
from deploy_attn.jetson.errors import first_line
from deploy_attn.rewriting.blind_spots import blind_spot
from deploy_attn.rewriting.evidence import qualified_name
from deploy_attn.rewriting.families import matches_of
from deploy_attn.rewriting.finding import Finding
from deploy_attn.rewriting.fit import Outcome

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deploy_attn.modules.base import Shape
    from deploy_attn.rewriting.match import Build, Match

_SEED = 20180801


@dataclass(frozen=True)
class Candidate:
    """An instance that somebody recognised, where it stands, and every reading of it."""

    module: nn.Module
    paths: tuple[str, ...]
    matches: tuple[Match, ...]


class Wanted(NamedTuple):
    """Which forms are asked for: those of an engine's family, but for the places whose form is `chosen`, by path."""

    engine: str
    dynamic_size: bool
    chosen: Mapping[str, str] = MappingProxyType({})

    def form_at(self, paths: Sequence[str]) -> str:
        """The name of the form for an instance that stands at these paths."""
        return next((self.chosen[path] for path in paths if path in self.chosen), self.engine)


def outcome_of(candidate: Candidate, calls: Sequence[Arguments], wanted: Wanted) -> Outcome:
    """The first reading whose certificate holds, or why the nearest one does not."""
    reason = _unfit(candidate, calls, wanted)
    if reason is not None:
        return _left_alone(candidate, candidate.matches[0], reason)
    left: list[Outcome] = []
    for match in candidate.matches:
        outcome = _tried(candidate, match, calls, wanted)
        if outcome.form is not None:
            return outcome
        left.append(outcome)
    return min(left, key=_distance)


def _distance(outcome: Outcome) -> float:
    certificate = outcome.finding.certificate
    return float("inf") if certificate is None else certificate.worst_error


def _unfit(candidate: Candidate, calls: Sequence[Arguments], wanted: Wanted) -> str | None:
    """Why an instance cannot be replaced as the network uses it, whatever it computes."""
    if not calls:
        return "the network does not call it"
    if any(len(call.tensors) != 1 for call in calls):
        return "it is called with several tensors"
    if any(part._forward_hooks or part._forward_pre_hooks for part in candidate.module.modules()):
        return "it has forward hooks, which a replacement would lose"
    shapes = sorted({tuple(call.tensors[0].shape[1:]) for call in calls})
    if len(shapes) > 1 and not wanted.dynamic_size:
        return f"it is called with maps of several sizes: {shapes}"
    if not all(_alike(_beside_the_map(call), _beside_the_map(calls[0])) for call in calls[1:]):
        return "it is called with other arguments beside its map at other places, and noise is tried with the first's"
    return None


def _beside_the_map(call: Arguments) -> Arguments:
    return call.mapped(lambda _: None)  # type: ignore[arg-type, return-value]  # only compared


def _alike(first: Arguments, second: Arguments) -> bool:
    try:
        return bool(first == second)
    except Exception:  # what a user passes may raise anything when it is compared
        return False


def _tried(candidate: Candidate, match: Match, calls: Sequence[Arguments], wanted: Wanted) -> Outcome:
    """A reading with the module's own weights, and then with others.

    Where weights are tiny, functions that differ far out give the same; random
    ones tell them apart. A reading by exact type needs no second trial.
    """
    outcome = _proven(candidate, match, calls, wanted)
    if outcome.form is None or match.exact:
        return outcome
    unseen = blind_spot(candidate.module, outcome.form, calls[0])
    if unseen is not None:
        return _left_alone(candidate, match, f"not proven: {unseen}", outcome.finding.certificate)
    index = candidate.matches.index(match)
    other = _with_random_weights(candidate.module)
    readings = tuple(matches_of(other))
    if len(readings) != len(candidate.matches):
        return _left_alone(candidate, match, "not proven: with other weights it is read in another way")
    again = _proven(replace(candidate, module=other, matches=readings), readings[index], calls, wanted, brief=True)
    if again.form is not None:
        return outcome
    return _left_alone(candidate, match, f"{again.finding.reason} with other weights", again.finding.certificate)


def _proven(
    candidate: Candidate, match: Match, calls: Sequence[Arguments], wanted: Wanted, brief: bool = False
) -> Outcome:
    """A reading whose certificate holds with the weights that the module has, or why it does not."""
    shape = map_shape(calls[0].tensors[0].shape, match.layout)
    if match.build is None:
        return _left_alone(candidate, match, match.refusal or "it has no export form")
    if shape is None:
        return _left_alone(candidate, match, f"it is called with a tensor of {calls[0].tensors[0].dim()} axes")
    claim = _claim(candidate, match, calls[0], wanted)
    observed = {f"the network's own, call {index}": call for index, call in enumerate(calls)}
    try:
        proof = prove_claim(replace(claim, brief=brief), shape, {} if brief else observed)
    except Exception as error:  # a user's module may raise anything over the inputs of a proof
        return _left_alone(candidate, match, f"not proven: {first_line(error)}")
    if not proof.certificate.proven:
        worst = f"not proven: worst error {proof.certificate.worst_error:.1e}"
        return _left_alone(candidate, match, worst, proof.certificate)
    finding = replace(_left_alone(candidate, match, "", proof.certificate).finding, replaced=True, reason=None)
    return Outcome(candidate.module, finding, proof.form)


def _claim(candidate: Candidate, match: Match, call: Arguments, wanted: Wanted) -> Claim:
    from deploy_attn.modules.base import MapShape
    from deploy_attn.modules.first_map import FirstMap

    plain = len(call.positional) == 1 and not call.named
    build: Build = match.build  # type: ignore[assignment]  # a reading without a form is no claim

    def form(shape: Shape) -> nn.Module:
        _, channels, height, width = shape
        size = (None, None) if wanted.dynamic_size else (height, width)
        built = build(MapShape(channels, *size), wanted.form_at(candidate.paths)).double()
        return built if plain else FirstMap(built)

    def called(x: Tensor) -> Arguments:
        return call.mapped(lambda _: x)

    return Claim(candidate.module, form, wanted.dynamic_size, match.layout, hasty=True, call=called)


def _with_random_weights(module: nn.Module) -> nn.Module:
    """A copy with weights at which every function of it matters."""
    import torch

    other = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for parameter in other.parameters():
            deviation = max(parameter[0].numel(), 1) ** -0.5 if parameter.dim() > 1 else 0.5
            parameter.normal_(0, deviation, generator=generator)
    return other


def _left_alone(candidate: Candidate, match: Match, reason: str, certificate: Certificate | None = None) -> Outcome:
    finding = Finding(
        paths=candidate.paths,
        class_name=qualified_name(candidate.module),
        recognised_as=match.name,
        evidence=match.evidence,
        replaced=False,
        reason=reason,
        certificate=certificate,
    )
    return Outcome(candidate.module, finding, None)
