"""A network that computes one chosen meaning of its writes in place, on any number of threads, and for exporters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import Arguments, with_tensors
from deploy_attn.export.copying import copied, in_float64
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.rewriting.aliasing import WRITES_INPUT, AliasingFinding, find_aliasing
from deploy_attn.rewriting.functional import Writes

if TYPE_CHECKING:
    from torch import nn

SEMANTICS = ("shift", "smear")


def settled(
    network: nn.Module, arguments: Arguments, semantics: str | None
) -> tuple[nn.Module, tuple[AliasingFinding, ...]]:
    """`with_semantics` for what `find_aliasing` finds in a float64 copy, and the findings.

    Raises:
        BadRequest: as these do, and `in_float64`.
    """
    import torch

    findings = find_aliasing(in_float64(network), arguments.as_type(torch.float64))
    return with_semantics(network, findings, semantics), findings


def with_semantics(network: nn.Module, findings: Sequence[AliasingFinding], semantics: str | None) -> nn.Module:
    """A copy that computes the chosen meaning; the network itself where nothing is written.

    `shift`: a copy reads its whole source before it writes, and a module that
    is found to write into its input leaves it as it was. `smear`: a copy goes
    element by element in the order of memory, as one CPU thread does, and a
    caller sees what was written. Classes, keys and signatures stay.

    Raises:
        BadRequest: a finding asks for a choice and there is none, or there is no such semantics of it.
    """
    if semantics is not None and semantics not in SEMANTICS:
        raise BadRequest(f"There is no semantics {semantics!r}; it is {' or '.join(SEMANTICS)}.")
    asking = [finding.message for finding in findings if finding.asks]
    if asking and semantics is None:
        raise BadRequest("\n".join(["Eager mode and every export of this network disagree.", *asking, _ADVICE]))
    if semantics == "smear" and any(math.isnan(finding.smear_error) for finding in findings):
        raise BadRequest("\n".join([*asking, "Choose --semantics shift, or copy from a clone."]))
    rewritten = [finding for finding in findings if finding.writes]
    if not rewritten:
        return network
    chosen = semantics or SEMANTICS[0]
    twin = copied(network)
    offenders = {twin.get_submodule(finding.path) for finding in rewritten}
    hiding = {twin.get_submodule(finding.path) for finding in rewritten if finding.kind == WRITES_INPUT}
    for module in list(twin.modules()):
        if offenders & set(module.modules()):
            hides = module in hiding and chosen == "shift"
            module.forward = _Followed(module, chosen, hides, module in offenders)
    return twin


_ADVICE = (
    "No parity holds against a network that has two meanings. Choose one: --semantics shift is what gradients and "
    "exporters take a copy to mean, and leaves inputs as they were; --semantics smear is what eager mode computes on "
    "one CPU thread. In Python: rewrite(..., semantics=...)."
)


def released(network: nn.Module) -> nn.Module:
    """The network, as it runs by itself wherever no module is left that needed `with_semantics`."""
    for module in network.modules():
        followed = vars(module).get("forward")
        parts = (vars(part).get("forward") for part in module.modules())
        if isinstance(followed, _Followed) and not any(isinstance(part, _Followed) and part.offends for part in parts):
            module.forward = followed.__wrapped__
    return network


class _Followed:
    """A module's forward in which writes are followed; one run follows the whole of what it calls."""

    def __init__(self, module: nn.Module, semantics: str, hides: bool, offends: bool) -> None:
        self.__wrapped__: Any = module.forward  # inspect.signature reads it
        self.semantics = semantics
        self.hides = hides
        self.offends = offends

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from torch.overrides import _get_current_function_mode_stack

        if any(isinstance(getattr(mode, "writes", None), Writes) for mode in _get_current_function_mode_stack()):
            return self._run(args, kwargs)
        writes = Writes(self.semantics)
        with writes.followed():
            result = self._run(args, kwargs)
        return writes.present(result)

    def _run(self, args: Any, kwargs: Any) -> Any:
        if self.hides:
            args, kwargs = with_tensors((args, kwargs), lambda tensor: tensor.clone())
        return self.__wrapped__(*args, **kwargs)
