"""Where tensors lie in memory that they share, and that memory as a value of its own."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class NotFollowed(Exception):
    """Memory is used in a way that no value of its own stands for."""


@dataclass(frozen=True)
class Place:
    """Extents and steps of a tensor, in elements; `offset` counts from the first element of the memory's owner."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: Tensor, start: int = 0) -> Place:
        """The place of a tensor in memory whose owner starts at this element of the storage."""
        return cls(tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()) - start)

    @property
    def elements(self) -> int:
        return math.prod(self.size)

    def positions(self) -> Tensor:
        """Where each element lies, int64, in the tensor's shape."""
        import torch

        found = torch.full(self.size, self.offset, dtype=torch.int64)
        for axis, (extent, step) in enumerate(zip(self.size, self.stride)):
            found = found + (torch.arange(extent) * step).reshape(-1, *[1] * (len(self.size) - axis - 1))
        return found


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """What is computed here is seen by no tracer and no mode; sizes are plain numbers."""
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    state = torch._C._get_tracing_state()
    resume = torch._C._set_tracing_state  # type: ignore[attr-defined]  # its stubs lack it
    resume(None)
    try:
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            yield
    finally:
        resume(state)


def share_memory(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors lie in one storage, at whatever places."""
    return bool(first.untyped_storage()._cdata == second.untyped_storage()._cdata)


def shared(first: Place, second: Place) -> bool:
    """Whether different places have an element in common."""
    if first == second or not first.elements or not second.elements:
        return False
    return bool((_writers(first.positions().flatten(), second.positions()) >= 0).any())


def order_matters(target: Place, source: Place) -> bool:
    """Whether a copy reads what the same copy overwrites with something else. Both places have one size."""
    if target == source or not target.elements:
        return False
    written, read = target.positions().flatten(), source.positions().flatten()
    writer = _writers(written, read)
    return bool(((writer >= 0) & (read[writer] != read)).any())


def read_in_order(target: Place, source: Place) -> Tensor:
    """From where each element comes if a copy goes one by one, in the order of the target's memory.

    An element that was written earlier in the same copy is read as written.
    Returns positions as they are before the copy, in the target's shape.
    """
    import torch

    written, order = target.positions().flatten().sort()
    read = source.positions().flatten()[order]
    turn = torch.arange(len(read))
    writer = _writers(written, read)
    origin = torch.where((writer >= 0) & (writer < turn), writer, turn)
    while not torch.equal(origin[origin], origin):
        origin = origin[origin]
    found = torch.empty_like(read)
    found[order] = read[origin]
    return found.reshape(target.size)


def _writers(written: Tensor, read: Tensor) -> Tensor:
    """Which entry of `written` is each position read; -1 where none is."""
    import torch

    found = torch.full((int(max(written.max(), read.max())) + 1,), -1, dtype=torch.int64)
    found[written] = torch.arange(len(written))
    return found[read]


def in_owner(positions: Tensor, owner: Place) -> Tensor:
    """Positions as places in the flattened owner, int64.

    Raises:
        NotFollowed: one lies outside of the owner.
    """
    found = _writers(owner.positions().flatten(), positions)
    if bool((found < 0).any()):
        raise NotFollowed("it reaches beyond the tensor that owns the memory")
    return found


def written(value: Tensor, owner: Place, target: Place, new: Tensor) -> Tensor:
    """The owner's value with `new` at the target, as Split and Concat where it is a box, else as one Gather.

    Raises:
        NotFollowed: the target lies outside of the owner, or has two elements at one place.
    """
    import torch

    if owner == target:
        return _laid_out(new, owner)
    with untraced():
        index = in_owner(target.positions(), owner)
        if not torch.equal(_writers(index.flatten(), index).flatten(), torch.arange(target.elements)):
            raise NotFollowed("it is written where two of its elements lie at one place")
        box = _box(index, owner.size)
    if box is None:
        return _laid_out(_scattered(value, index, new), owner)
    start, stop, order = box
    extents = [last - first for first, last in itertools.islice(zip(start, stop), 1, None)]
    return _laid_out(_with_box(value, box, new.permute(order).reshape(-1, *extents)), owner)


_Box = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def _box(index: Tensor, size: tuple[int, ...]) -> _Box | None:
    """First and last place along each axis of the owner, and the order of the target's axes; None for no box."""
    import torch

    start = tuple(map(int, _by_axes(index.min(), size)))
    stop = tuple(int(place) + 1 for place in _by_axes(index.max(), size))
    held = torch.arange(math.prod(size)).reshape(size)[tuple(map(slice, start, stop))]
    corner = index[(slice(0, 2),) * index.dim()]
    steps = [int(corner.select(axis, -1).min() - corner.min()) for axis in range(index.dim())]
    if index.shape[:1] == (1,):
        steps[0] = math.prod(size)  # a batch of one may become more, and stays in front
    order = tuple(sorted(range(index.dim()), key=lambda axis: -steps[axis]))
    same = torch.equal(index.permute(order).flatten(), held.flatten())
    return (start, stop, order) if same else None


def _by_axes(index: Tensor, size: tuple[int, ...]) -> list[Tensor]:
    """Places in a flattened tensor as places along each of its axes; torch's own takes a second to import."""
    found = []
    for extent in reversed(size):
        found.append(index % extent)
        index = index // extent
    return found[::-1]


def _with_box(value: Tensor, box: _Box, new: Tensor, axis: int = 0) -> Tensor:
    import torch

    if axis == value.dim():
        return new
    start, stop, _ = box
    with untraced():
        before, after = start[axis], int(value.shape[axis]) - stop[axis]
    if not before and not after:
        return _with_box(value, box, new, axis + 1)
    sizes = [before, stop[axis] - before, after]
    parts = list(value.split([size for size in sizes if size], axis))
    held = 1 if before else 0
    parts[held] = _with_box(parts[held], box, new, axis + 1)
    return torch.cat(parts, axis)


def _scattered(value: Tensor, index: Tensor, new: Tensor) -> Tensor:
    """One Gather from the old and the new elements; the batch stays open where every item of it is written alike."""
    import torch

    with untraced():
        size = tuple(value.shape)
        by_item = index.dim() > 0 and index.shape[0] == size[0] and _alike(index, math.prod(size[1:]))
        item = index[0] if by_item else index
        chosen = torch.arange(math.prod(size[1:]) if by_item else math.prod(size))
        chosen[item.flatten()] = len(chosen) + torch.arange(item.numel())
    if by_item:
        both = torch.cat([value.flatten(1), new.flatten(1)], 1)
        return both.index_select(1, chosen).reshape(-1, *size[1:])
    return torch.cat([value.flatten(), new.flatten()]).index_select(0, chosen).reshape(size)


def _alike(index: Tensor, step: int) -> bool:
    """Whether each item of a batch has the places of the first one, in its own part of the owner."""
    import torch

    items = torch.arange(index.shape[0]).reshape(-1, *[1] * (index.dim() - 1)) * step
    inside = bool((index[0] < step).all())
    return inside and torch.equal(index, index[:1] + items)


def gathered(value: Tensor, index: Tensor) -> Tensor:
    """The owner's elements at these places of it flattened: an index along each axis where that says all."""
    import torch

    with untraced():
        size = tuple(value.shape)
        axes = _by_axis(index, size)
        whole = [torch.equal(line, torch.arange(extent)) for line, extent in zip(axes or [], size)]
        by_item = index.dim() > 0 and index.shape[0] == size[0] and _alike(index, math.prod(size[1:]))
        found = tuple(index.shape)
        places = (index[0] if by_item else index).flatten()
    if axes is not None:
        for axis, line in enumerate(axes):
            value = value if whole[axis] else value.index_select(axis, line)
        return value
    if by_item:
        return value.flatten(1).index_select(1, places).reshape(-1, *found[1:])
    return value.flatten().index_select(0, places).reshape(found)


def _by_axis(index: Tensor, size: tuple[int, ...]) -> list[Tensor] | None:
    """The place along each axis of the owner, where it depends on the same axis alone."""
    import torch

    if index.dim() != len(size):
        return None
    found = []
    for axis, places in enumerate(_by_axes(index, size)):
        line = places[tuple(slice(None) if other == axis else slice(0, 1) for other in range(len(size)))]
        if not torch.equal(line.expand_as(places), places):
            return None
        found.append(line.flatten())
    return found


def _laid_out(value: Tensor, owner: Place) -> Tensor:
    """The same values in the owner's order of memory, so that later views are views again."""
    with untraced():
        if tuple(value.stride()) == owner.stride:
            return value
    order = sorted(range(len(owner.stride)), key=lambda axis: -owner.stride[axis])
    return value.permute(order).contiguous().permute([order.index(axis) for axis in range(len(order))])
