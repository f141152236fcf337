"""SimAM under any name: no weights, a small constant, and a sigmoid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.rewriting.activations import activations_of, holds_tensors
from deploy_attn.rewriting.forward_names import names_in_forward, numbers_in_forward
from deploy_attn.rewriting.match import Match

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape
    from deploy_attn.rewriting.match import Build

_LARGEST = 1e-2  # beyond, it is no constant that keeps a quotient finite
_STATISTICS = frozenset({"mean", "var", "var_mean"})


def recognise(module: nn.Module) -> Iterator[Match]:
    """A module without tensors whose forward takes a mean, and which knows a lambda and a sigmoid.

    Lambda is an attribute with such a name, or else a small number in forward.
    """
    if type(module).__module__.startswith("torch.") or _STATISTICS.isdisjoint(names_in_forward(module)):
        return
    constants = _constants(module)
    if not constants or holds_tensors(module):
        return
    if not any(activation.name == "Sigmoid" for activation in activations_of(module)):
        return
    for where, constant in constants:
        evidence = ("no keys", f"{where} {constant:g}", "a mean and a sigmoid")
        yield Match("simam", evidence, _builder(constant))


def _constants(module: nn.Module) -> tuple[tuple[str, float], ...]:
    """The small numbers that may be lambda, and where each stands."""
    named = [
        (f"attribute {name}", value)
        for name, value in vars(module).items()
        if isinstance(value, float) and any(part in name.lower() for part in ("lambda", "lamda", "eps"))
    ]
    written = [("number in forward", value) for value in numbers_in_forward(module)]
    return tuple((where, value) for where, value in (named or written) if 0 < value <= _LARGEST)


def _builder(constant: float) -> Build:
    def build(shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.simam import SimAM

        return SimAM(e_lambda=constant).form_for(shape, engine)

    return build
