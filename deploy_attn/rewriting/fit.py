"""Puts proven forms into a copy of their network, and takes back what the network as a whole does not bear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deploy_attn.export.certificate import Trial, compare_with
from deploy_attn.export.copying import with_other_modules
from deploy_attn.jetson.errors import DeployAttnError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deploy_attn.export.arguments import Arguments
    from deploy_attn.rewriting.finding import Finding

_HINT = "though the replacement was proven. Does its forward read attributes of the module?"


@dataclass(frozen=True)
class Outcome:
    """What became of an instance; the form is None where it is left alone."""

    module: nn.Module
    finding: Finding
    form: nn.Module | None


@dataclass(frozen=True)
class Fitted:
    """A network with the forms that it bears, and its trial."""

    network: nn.Module
    outcomes: tuple[Outcome, ...]
    whole: Trial


def fit(reference: nn.Module, outcomes: Sequence[Outcome], arguments: Arguments, wanted: list[Tensor]) -> Fitted:
    """The network with every form, or with those that it bears one by one.

    Args:
        wanted: what the reference returns for these arguments.

    Raises:
        DeployAttnError: even the copy without any form differs from the reference.
    """
    fitted = _with_forms(reference, tuple(outcomes), arguments, wanted)
    if isinstance(fitted, Fitted):
        return fitted
    kept: tuple[Outcome, ...] = tuple(outcome for outcome in outcomes if outcome.form is None)
    for outcome in outcomes:
        if outcome.form is not None:
            problem = _with_forms(reference, (*kept, outcome), arguments, wanted)
            kept = (*kept, outcome if isinstance(problem, Fitted) else _taken_back(outcome, problem))
    in_order = {outcome.module: outcome for outcome in kept}
    fitted = _with_forms(reference, tuple(in_order[outcome.module] for outcome in outcomes), arguments, wanted)
    if not isinstance(fitted, Fitted):
        raise DeployAttnError(f"A copy of the network {fitted}, so nothing in it can be proven. Is there a state?")
    return fitted


def _with_forms(
    reference: nn.Module, outcomes: tuple[Outcome, ...], arguments: Arguments, wanted: list[Tensor]
) -> Fitted | str:
    """The network, or what is wrong with it as a whole."""
    forms = {outcome.module: outcome.form for outcome in outcomes if outcome.form is not None}
    network = with_other_modules(reference, forms)
    try:
        whole = compare_with("the whole network", reference, network, arguments, wanted)
    except Exception as error:  # a network may raise anything
        return f"raises {type(error).__name__}: {first_line(error)}"
    if not whole.passed:
        return f"differs by {whole.error:.1e} in float64 (bound {whole.bound:.1e})"
    return Fitted(network, outcomes, whole)


def _taken_back(outcome: Outcome, problem: str) -> Outcome:
    reason = f"with it replaced the network {problem}, {_HINT}"
    return Outcome(outcome.module, replace(outcome.finding, replaced=False, reason=reason), None)
