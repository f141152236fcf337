"""Elements that change places: roll, shuffle of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy_attn.export.functions.rule import Aim, NoForm, sizes_of

if TYPE_CHECKING:
    from torch import Tensor


def roll(aim: Aim, x: Tensor, shifts: Any, dims: Any = None) -> Tensor | None:
    """Two slices and a concatenation an axis; without `dims` of the flattened tensor.

    The exporter writes the same where each shift is less than its axis; a
    larger one it writes wrongly, and a flattened one it refuses.
    """
    steps = [int(shift) for shift in (shifts if isinstance(shifts, (tuple, list)) else (shifts,))]
    axes = [int(axis) for axis in dims] if isinstance(dims, (tuple, list)) else [] if dims is None else [int(dims)]
    extents = sizes_of(x)
    if axes and all(abs(step) < extents[axis] for step, axis in zip(steps, axes)):
        return None
    if aim.open_size:
        raise NoForm("it goes around an axis whose extent is open; roll each axis by less than its extent")
    if not axes:
        return _rolled(x.reshape(-1), steps[0], 0).reshape(-1, *extents[1:])
    for step, axis in zip(steps, axes):
        x = _rolled(x, step, axis)
    return x


def _rolled(x: Tensor, step: int, axis: int) -> Tensor:
    import torch

    cut = step % max(sizes_of(x)[axis], 1)
    around = [slice(None)] * (axis % x.dim())
    last, others = (*around, slice(-cut, None)), (*around, slice(None, -cut))
    return torch.cat([x[last], x[others]], axis) if cut else x


def channel_shuffle(aim: Aim, x: Tensor, groups: int) -> Tensor | None:
    """Channel `g n + i` goes to place `i groups + g`."""
    if aim.open_size:
        return None
    channels, *extents = sizes_of(x)[1:]
    return x.reshape(-1, groups, channels // groups, *extents).transpose(1, 2).reshape(-1, channels, *extents)
