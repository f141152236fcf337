"""One run of a network, watched: what it returns, and what some of its modules are called with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import Arguments

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Observation:
    """What the network returned, and the calls of each watched module, in order."""

    returned: Any
    calls: Mapping[nn.Module, tuple[Arguments, ...]]


def observe(network: nn.Module, watched: Collection[nn.Module], example: Arguments) -> Observation:
    """Runs a network once. What its forward raises goes through."""
    import torch

    calls: dict[nn.Module, list[Arguments]] = {module: [] for module in watched}

    def note(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls[module].append(Arguments(positional, named).mapped(lambda x: x.detach().clone()))

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in calls]
    try:
        with torch.inference_mode():
            returned = example.call(network)
    finally:
        for hook in hooks:
            hook.remove()
    return Observation(returned, {module: tuple(seen) for module, seen in calls.items()})
