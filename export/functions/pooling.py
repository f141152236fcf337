"""Adaptive pooling of any extents: a reduction, a strided pool, or constant windows.

Cell i of m over an axis of n takes the elements from floor(i n / m) up to
ceil((i + 1) n / m). Exporters refuse an m that does not divide n.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from deploy_attn.export.functions.rule import Aim, NoForm, pair, sizes_of

if TYPE_CHECKING:
    from torch import Tensor

_LARGE_WINDOW = 1024  # TensorRT sums the window of a pool in one thread


@dataclass(frozen=True)
class _Pool:
    """One way to make a number of a window.

    Attributes:
        whole: over whole axes, which stay with an extent of 1.
        strided: over windows of `h w` at strides of `h w`.
        windows: over windows (start, end) of one axis.
    """

    whole: Callable[[Tensor, tuple[int, ...]], Tensor]
    strided: Callable[[Tensor, tuple[int, int], tuple[int, int]], Tensor]
    windows: Callable[[Tensor, int, list[tuple[int, int]]], Tensor]


def adaptive_avg_pool1d(aim: Aim, x: Tensor, output_size: Any) -> Tensor:
    return _over_a_map(aim, x, (None, pair(output_size)[0]), _average())


def adaptive_avg_pool2d(aim: Aim, x: Tensor, output_size: Any) -> Tensor:
    return _over_a_map(aim, x, pair(output_size), _average())


def adaptive_max_pool1d(aim: Aim, x: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
    return _over_a_map(aim, x, (None, pair(output_size)[0]), _maximum())


def adaptive_max_pool2d(aim: Aim, x: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
    return _over_a_map(aim, x, pair(output_size), _maximum())


def adaptive_max_pool_with_indices(aim: Aim, x: Tensor, output_size: Any, return_indices: bool = True) -> NoReturn:
    raise NoForm(
        "it returns the places of its maxima as well, and no engine's pool gives those; leave return_indices out"
    )


def _over_a_map(aim: Aim, x: Tensor, wanted: tuple[Any, Any], pool: _Pool) -> Tensor:
    """Pools the last two axes; a wanted extent of None keeps its axis."""
    cells = {axis: int(extent) for axis, extent in zip((-2, -1), wanted) if extent is not None}
    whole = tuple(axis for axis, count in cells.items() if count == 1)
    if aim.open_size and len(whole) < len(cells):
        raise NoForm(
            f"cells of an open height and width have no fixed windows; export for one size, or pool to 1 instead of "
            f"{'x'.join('all' if extent is None else str(int(extent)) for extent in wanted)}"
        )
    if whole:
        x = pool.whole(x, whole)
    extents = sizes_of(x)
    windows = {axis: _windows(extents[axis], count) for axis, count in cells.items() if extents[axis] != count}
    even = {axis: _even(spans) for axis, spans in windows.items()}
    if windows and x.dim() == 4 and all(even.values()):
        kernel, stride = zip(*(even.get(axis) or (1, 1) for axis in (-2, -1)))
        if math.prod(kernel) < _LARGE_WINDOW:
            return pool.strided(x, kernel, stride)
    for axis in sorted(windows, reverse=True):
        x = pool.windows(x, axis, windows[axis])
    return x


def _windows(extent: int, count: int) -> list[tuple[int, int]]:
    return [(index * extent // count, -(-(index + 1) * extent // count)) for index in range(count)]


def _even(windows: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Kernel and stride, where all windows are as long and as far apart."""
    lengths = {end - start for start, end in windows}
    strides = {second[0] - first[0] for first, second in itertools.pairwise(windows)}
    return (lengths.pop(), strides.pop()) if len(lengths) == len(strides) == 1 and 0 not in strides else None


def _average() -> _Pool:
    from torch.nn import functional

    return _Pool(lambda x, axes: x.mean(axes, keepdim=True), functional.avg_pool2d, _mean_of_windows)


def _maximum() -> _Pool:
    from torch.nn import functional

    return _Pool(lambda x, axes: x.amax(axes, keepdim=True), functional.max_pool2d, _largest_of_windows)


def _mean_of_windows(x: Tensor, axis: int, windows: list[tuple[int, int]]) -> Tensor:
    """One product with a constant matrix that has 1 / length in each cell's window."""
    extent = sizes_of(x)[axis]
    rows = [[1 / (end - start) if start <= index < end else 0.0 for index in range(extent)] for start, end in windows]
    return applied(x, axis, rows)


def applied(x: Tensor, axis: int, rows: list[list[float]]) -> Tensor:
    """A matrix of `new old` extents times the last axis, or the one before it."""
    import torch

    matrix = torch.tensor(rows, dtype=x.dtype, device=x.device)
    return matrix @ x if axis == -2 else x @ matrix.T.contiguous()


def _largest_of_windows(x: Tensor, axis: int, windows: list[tuple[int, int]]) -> Tensor:
    import torch

    cells = [x.narrow(axis, start, end - start).amax(axis, keepdim=True) for start, end in windows]
    return torch.cat(cells, axis)
