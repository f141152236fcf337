"""Triangles and one-hot codes by comparison with constants; ONNX has Trilu from opset 14, TensorRT 8 no OneHot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy_attn.export.functions.rule import Aim, sizes_of

if TYPE_CHECKING:
    from torch import Tensor

_TRILU, _ONE_HOT_IS_READ = 14, 17


def tril(aim: Aim, x: Tensor, diagonal: int = 0) -> Tensor | None:
    return _kept(aim, x, [[column - row <= diagonal for column in range(_columns(x))] for row in range(_rows(x))])


def triu(aim: Aim, x: Tensor, diagonal: int = 0) -> Tensor | None:
    return _kept(aim, x, [[column - row >= diagonal for column in range(_columns(x))] for row in range(_rows(x))])


def one_hot(aim: Aim, x: Tensor, num_classes: int = -1) -> Tensor | None:
    import torch

    if num_classes < 0 or aim.opset >= _ONE_HOT_IS_READ:
        return None
    return (x.unsqueeze(-1) == torch.tensor(list(range(num_classes)), device=x.device)).to(torch.int64)


def _kept(aim: Aim, x: Tensor, kept: list[list[bool]]) -> Tensor | None:
    """x where the table says so, zero elsewhere; infinities may stand in either part."""
    import torch

    if aim.opset >= _TRILU or aim.open_size:
        return None
    return torch.where(torch.tensor(kept, device=x.device), x, torch.zeros((), dtype=x.dtype, device=x.device))


def _rows(x: Tensor) -> int:
    return sizes_of(x)[-2]


def _columns(x: Tensor) -> int:
    return sizes_of(x)[-1]
