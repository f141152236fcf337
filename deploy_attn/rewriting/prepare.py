"""The copy of a network that is proven, and the way back to the caller's type and device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy_attn.export.copying import in_float64

if TYPE_CHECKING:
    from torch import Tensor, nn


def prepared(model: nn.Module) -> nn.Module:
    """A float64 copy in eval mode, on the CPU, whose weights stand where they are used.

    Parametrizations, `weight_norm`, `spectral_norm` and pruning are computed
    once, as in eval mode, and removed: they are the same numbers at every call.
    What torch.compile or DataParallel wrapped stands there by itself. What is
    shared stays shared.

    Raises:
        BadRequest: it cannot be copied, or has weights of a kind, that no proof can be had of.
    """
    network = in_float64(model)
    for module in list(network.modules()):
        _computed_once(module)
    return network


def restored(network: nn.Module, model: nn.Module) -> nn.Module:
    """The rewritten network in the type, and on the device, of the caller's parameters."""
    import torch

    values: list[Tensor] = [*model.parameters(), *model.buffers()]
    real = next((value for value in values if value.is_floating_point()), torch.empty(0))
    return network.to(real.device, real.dtype)


def _computed_once(module: nn.Module) -> None:
    import torch
    from torch.nn.utils import prune
    from torch.nn.utils.parametrize import is_parametrized
    from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
    from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

    with torch.no_grad():
        if is_parametrized(module):
            _without_parametrizations(module)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)


def _without_parametrizations(module: nn.Module) -> None:
    """By hand: `remove_parametrizations` changes the class, which a copy has in common with the caller's module."""
    from torch import nn
    from torch.nn.utils.parametrize import type_before_parametrizations

    lists = dict(module.get_submodule("parametrizations").named_children())
    values = {name: getattr(module, name).detach() for name in lists}
    module.__class__ = type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        if "original" in lists[name]._buffers:
            module.register_buffer(name, value)
        else:
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))
