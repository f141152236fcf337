"""What shows that a module gates its map by what it pools of it, and how it may go about that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy_attn.rewriting.layers import words_of

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.channel_gate import GateUse

_POOLS = ("pool", "mean", "amax", "sum")
_MAXES = frozenset({"max", "amax", "adaptive_max_pool2d", "max_pool2d"})


def pools(module: nn.Module) -> bool:
    """Whether it has a forward, and a name there or the class of a child is that of a pool."""
    from torch import nn

    if type(module).forward is nn.Module.forward and "forward" not in vars(module):
        return False
    return any(pool in word for word in words_of(module) for pool in _POOLS)


def uses_of(module: nn.Module, channels_last: bool = False) -> tuple[GateUse, ...]:
    """The ways in which it may pool and gate, the likeliest first.

    Args:
        channels_last: its layers take maps of `b h w c` too.
    """
    from torch import nn

    from deploy_attn.modules.channel_gate import GateUse

    uses = [GateUse(applied=False), GateUse(applied=False, flat=True)]
    if not isinstance(module, nn.Sequential):
        uses = [GateUse(), *([GateUse(channels_last=True)] if channels_last else []), *uses]
    if not any(word in _MAXES or "maxpool" in word for word in words_of(module)):
        return tuple(uses)
    with_max = [use._replace(add_max=True) for use in uses]
    return tuple([*with_max, *uses] if getattr(module, "add_maxpool", True) else [*uses, *with_max])


def use_said(use: GateUse) -> tuple[str, str]:
    """How it pools and what it returns, as evidence."""
    pooled = "pools by the half sum of mean and max" if use.add_max else "pools by the mean"
    if use.channels_last:
        return f"{pooled} of b h w c", "returns the gated map"
    return pooled, "returns the gated map" if use.applied else f"returns the gate, {'b c' if use.flat else 'b c 1 1'}"


def is_wrapper(module: nn.Module, recognised: Callable[[nn.Module], bool]) -> bool:
    """Whether something inside it is a recognised module in itself.

    A `Sequential` in a class that is none does not count: it is the layers of
    the gate that the class applies.
    """
    from torch import nn

    plain = isinstance(module, nn.Sequential)
    inside = [part for part in module.modules() if part is not module]
    return any(recognised(part) for part in inside if plain or not isinstance(part, nn.Sequential))
