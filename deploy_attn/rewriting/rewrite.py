"""Replaces catalogue modules in a network by their export forms, each under a certificate."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy_attn.export.certificate import Certificate, Trial, compare_modules, prove
from deploy_attn.jetson.errors import DeployAttnError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deploy_attn.modules.base import ReferenceForm


@dataclass(frozen=True)
class Finding:
    """One attention module of a network: where, what, and whether it was replaced.

    `paths` are all places where the same instance stands; the root is "".
    `reason` says why it was left alone and is None where it was replaced.
    """

    paths: tuple[str, ...]
    recognised_as: str
    replaced: bool
    reason: str | None
    certificate: Certificate | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "paths": list(self.paths),
            "recognised_as": self.recognised_as,
            "replaced": self.replaced,
            "reason": self.reason,
            "certificate": None if self.certificate is None else self.certificate.as_dict(),
        }


@dataclass(frozen=True)
class Rewrite:
    """A float64 network with export forms, what was found on the way, and the trial of the whole."""

    model: nn.Module
    findings: tuple[Finding, ...]
    whole: Trial

    def as_dict(self) -> dict[str, Any]:
        return {
            "network": self.whole.as_dict(),
            "modules": [finding.as_dict() for finding in self.findings],
        }


class _FormRequest(NamedTuple):
    engine: str
    dynamic_size: bool


def rewrite(model: nn.Module, example: Tensor, engine: str = "cpu", dynamic_size: bool = False) -> Rewrite:
    """Returns a float64 copy of a network, in eval mode, with its attention in export form.

    Every instance of a catalogue class is replaced once, wherever it stands,
    if its equivalence certificate holds; the network's own activations at that
    place are among the inputs tried. The caller's object is not touched.

    Args:
        model: the network; it may be a catalogue module itself.
        example: an input `b c h w`.
        engine: the engine's family, `cpu` or `gpu`.
        dynamic_size: build forms that take any h and w.

    Raises:
        BadRequest: a module's graph is made for one size, and any is asked for.
        DeployAttnError: each replacement holds and the whole network does not.
    """
    reference = copy.deepcopy(model).double().eval()
    places = _places(reference)
    observed = _observe(reference, list(places), example.double())
    findings = []
    forms: dict[ReferenceForm, nn.Module] = {}
    for module, paths in places.items():
        finding, form = _proven_form(module, paths, observed[module], _FormRequest(engine, dynamic_size))
        findings.append(finding)
        if form is not None:
            forms[module] = form
    rewritten = _swapped(reference, forms, places)
    hint = "though each replacement was proven. Does its forward read the attributes of a replaced module?"
    try:
        whole = compare_modules("the whole network", reference, rewritten, example.double())
    except Exception as error:  # a network may raise anything
        found = f"raises {type(error).__name__}: {first_line(error)}"
        raise DeployAttnError(f"With its attention replaced the network {found}, {hint}") from error
    if not whole.passed:
        found = f"differs by {whole.error:.1e} in float64 (bound {whole.bound:.1e})"
        raise DeployAttnError(f"With its attention replaced the network {found}, {hint}")
    return Rewrite(rewritten, tuple(findings), whole)


def _places(network: nn.Module) -> dict[ReferenceForm, tuple[str, ...]]:
    from deploy_attn.modules.base import ReferenceForm

    places: dict[ReferenceForm, tuple[str, ...]] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, ReferenceForm):
            places[module] = (*places.get(module, ()), path)
    return places


def _observe(network: nn.Module, modules: list[ReferenceForm], x: Tensor) -> dict[nn.Module, list[Tensor]]:
    """What each module is fed when the network runs once."""
    import torch

    seen: dict[nn.Module, list[Tensor]] = {module: [] for module in modules}

    def note(module: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        given = arguments[0] if arguments else named["x"]
        seen[module].append(given.detach().clone())

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        with torch.inference_mode():
            network(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _proven_form(
    module: ReferenceForm, paths: tuple[str, ...], inputs: list[Tensor], want: _FormRequest
) -> tuple[Finding, nn.Module | None]:
    name = module.catalogue_name
    shapes = {tuple(x.shape[1:]) for x in inputs}
    if not shapes:
        return Finding(paths, name, False, "the network does not call it", None), None
    if len(shapes) > 1 and not want.dynamic_size:
        reason = f"it is called with maps of several sizes: {sorted(shapes)}"
        return Finding(paths, name, False, reason, None), None
    batch, channels, height, width = inputs[0].shape
    shape = (batch, channels, height, width)
    observed = {f"the network's own, call {i}": x for i, x in enumerate(inputs)}
    proof = prove(module, shape, want.engine, observed, want.dynamic_size)
    if not proof.certificate.proven:
        reason = f"not proven: worst error {proof.certificate.worst_error:.1e}"
        return Finding(paths, name, False, reason, proof.certificate), None
    return Finding(paths, name, True, None, proof.certificate), proof.form


def _swapped(
    network: nn.Module, forms: Mapping[ReferenceForm, nn.Module], places: Mapping[ReferenceForm, tuple[str, ...]]
) -> nn.Module:
    rewritten = copy.deepcopy(network)
    for module, form in forms.items():
        for path in places[module]:
            if path == "":
                return form
            parent, _, child = path.rpartition(".")
            setattr(rewritten.get_submodule(parent), child, form)
    return rewritten
