"""Pools whose window is the whole map, as `F.avg_pool2d(x, x.size()[2:])`: a mean or a maximum.

With an open size the window is no constant, and exporters refuse it; with a
fixed one an engine sums it in one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy_attn.export.functions.rule import Aim, pair, sizes_of

if TYPE_CHECKING:
    from torch import Tensor

_NO_EFFECT = frozenset(["ceil_mode", "count_include_pad"])  # on one window without pads


def avg_pool2d(aim: Aim, x: Tensor, kernel_size: Any, **settings: Any) -> Tensor | None:
    axes = _whole_axes(aim, x, kernel_size, settings)
    return x.mean(axes, keepdim=True) if axes else None


def max_pool2d(aim: Aim, x: Tensor, kernel_size: Any, **settings: Any) -> Tensor | None:
    axes = _whole_axes(aim, x, kernel_size, settings)
    return x.amax(axes, keepdim=True) if axes else None


def _whole_axes(aim: Aim, x: Tensor, kernel_size: Any, settings: dict[str, Any]) -> tuple[int, ...]:
    """The axes that the window covers, where it leaves the others as they are; none otherwise."""
    import torch

    stride = pair(settings.pop("stride", None) or kernel_size)
    plain = {"padding": (0, 0), "dilation": (1, 1), "return_indices": (False, False), "divisor_override": (None, None)}
    others = {name: pair(value) for name, value in settings.items() if name not in _NO_EFFECT}
    if any(plain[name] != value for name, value in others.items()):
        return ()
    axes = []
    for axis, extent, kernel, step in zip((-2, -1), sizes_of(x)[-2:], pair(kernel_size), stride):
        # A number covers an open axis only by chance; the extent that the network read is a tensor in a trace.
        by_chance = aim.open_size and torch.jit.is_tracing() and not isinstance(kernel, torch.Tensor)  # type: ignore[attr-defined,no-untyped-call]
        if int(kernel) == extent and not by_chance:
            axes.append(axis)
        elif (int(kernel), int(step)) != (1, 1):
            return ()
    return tuple(axes)
