"""Non-local blocks under the names of four sources."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deploy_attn.rewriting.families.loaded import loaded, numbers, tensors_of
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape

_KNOWN = ("timm.layers.non_local_attn.NonLocalAttn",)
# Path in the catalogue's reference form -> path in the source; what is pooled or normed is a Sequential there.
_SOURCES: tuple[Mapping[str, str], ...] = (
    MappingProxyType({}),
    MappingProxyType({"W": "W_z", "concat_project": "W_f"}),
    MappingProxyType({"theta": "t", "phi": "p", "W": "z", "W.0": "z", "W.1": "norm"}),
    MappingProxyType(
        {
            "g": "g.conv",
            "g.0": "g.0.conv",
            "theta": "theta.conv",
            "phi": "phi.conv",
            "phi.0": "phi.0.conv",
            "W": "conv_out.conv",
            "W.0": "conv_out.conv",
            "W.1": "conv_out.bn",
            "concat_project.0": "concat_project.conv",
        }
    ),
)
_LAST = ("W", "W_z", "z", "conv_out")


def recognise(module: nn.Module) -> Iterator[Match]:
    """By the names and shapes of g, theta, phi and W; what keys do not tell, mode and scale, are several readings."""
    if "g" not in module._modules or not any(name in module._modules for name in _LAST):
        return
    state = tensors_of(module)
    for names in _SOURCES:
        for bn_layer in (True, False):
            last = f"{names.get('W.0', names.get('W', 'W') + '.0') if bn_layer else names.get('W', 'W')}.weight"
            if last in state and state[last].dim() == 4:
                outputs, embedded = state[last].shape[:2]
                fixed = {"channels": outputs, "inter_channels": embedded, "bn_layer": bn_layer}
                yield from _modes(module, names, fixed)


def _modes(module: nn.Module, names: Mapping[str, str], fixed: Mapping[str, object]) -> Iterator[Match]:
    attributes = vars(module)
    own = attributes["mode"] if isinstance(attributes.get("mode"), str) else None
    modes = ("embedded_gaussian", "dot_product", "gaussian", "concatenation")
    for mode in sorted(modes, key=lambda mode: mode != own):
        for sub_sample in (False, True):
            options = {**fixed, "mode": mode, "sub_sample": sub_sample}
            reference = loaded("non_local", options, module, names)
            if reference is not None:
                yield from _scaled(module, reference)


def _scaled(module: nn.Module, reference: Any) -> Iterator[Match]:
    """The logits of the embedded Gaussian are scaled by nothing, or by one of two roots; an attribute may say more."""
    usual = (1.0, reference.embedded**-0.5, reference.channels**-0.5)
    softmax = reference.mode == "embedded_gaussian"
    for scale in dict.fromkeys((*numbers(module, "scale"), *usual)) if softmax else (1.0,):
        pooled = "sub-sampled" if reference.sub_sample else "not sub-sampled"
        said = f"mode {reference.mode}", pooled, "no scale" if scale == 1 else f"logits times {scale:.4g}"
        yield Match("non_local", seen(module, _KNOWN, *said), functools.partial(_form, reference, float(scale)))


def _form(reference: Any, scale: float, shape: MapShape, engine: str) -> nn.Module:
    """With the scale in theta."""
    import copy

    import torch

    own = copy.deepcopy(reference)
    if scale != 1:
        with torch.no_grad():
            own.theta.weight.mul_(scale)
            own.theta.bias.mul_(scale)
    form: nn.Module = own.form_for(shape, engine)
    return form
