"""Functions of one element that the exporter refuses or writes wrongly, or that TensorRT 8 reads wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy_attn.export.functions.rule import Aim, NoForm

if TYPE_CHECKING:
    from torch import Tensor

_CELU_IS_READ = 17  # TensorRT before 8.4 takes alpha to a power


def threshold(aim: Aim, x: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor | None:
    """x above the threshold, the value elsewhere; the exporter writes a threshold of zero only."""
    import torch

    if threshold == value == 0:
        return None
    _refuse_in_place(inplace)
    return torch.where(x > threshold, x, torch.full((), value, dtype=x.dtype, device=x.device))


def celu(aim: Aim, x: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor | None:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    if aim.opset >= _CELU_IS_READ:
        return None
    _refuse_in_place(inplace)
    return x.clamp(min=0) + (alpha * ((x / alpha).exp() - 1)).clamp(max=0)


def floor_divide(aim: Aim, x: Tensor, other: Any) -> Tensor | None:
    """The exporter rounds this quotient of real numbers towards zero, but that of `div` down."""
    import torch

    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        return None
    return x.div(other, rounding_mode="floor")


def _refuse_in_place(inplace: bool) -> None:
    if inplace:
        raise NoForm("it writes into its input; pass inplace=False")
