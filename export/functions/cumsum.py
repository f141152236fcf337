"""Running sums: a product with a constant triangle of ones, where TensorRT 8 makes a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy_attn.export.functions.pooling import applied
from deploy_attn.export.functions.rule import Aim, sizes_of

if TYPE_CHECKING:
    from torch import Tensor

_SHORT = 512  # a larger triangle costs more than the loop
_MODERN = 17  # engines of this opset run a loop well, and onnxruntime the operator itself


def cumsum(aim: Aim, x: Tensor, dim: int, dtype: Any = None) -> Tensor | None:
    """Along a short axis of real numbers that is not the batch."""
    axis = int(dim) % max(x.dim(), 1) - x.dim()
    other_type = not x.is_floating_point() or dtype not in (None, x.dtype)
    if other_type or aim.opset >= _MODERN or aim.open_size or axis == -x.dim():
        return None
    extent = sizes_of(x)[axis]
    if not 0 < extent <= _SHORT:
        return None
    rows = [[float(index <= row) for index in range(extent)] for row in range(extent)]
    if axis in (-1, -2):
        return applied(x, axis, rows)
    return applied(x.transpose(axis, -1), -1, rows).transpose(axis, -1)
