"""Norms that an opset lacks, or that TensorRT 8 makes a plugin, by means and a square root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy_attn.export.functions.rule import Aim, sizes_of

if TYPE_CHECKING:
    from torch import Tensor

_PLUGIN_BELOW = 17  # targets that read opset 17 have InstanceNormalization themselves


def rms_norm(
    aim: Aim, x: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean(x^2) + eps); without eps that of the type."""
    import torch

    axes = tuple(range(-len(normalized_shape), 0))
    deviation = (x.square().mean(axes, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps)).sqrt()
    return x / deviation if weight is None else x / deviation * weight


def group_norm(
    aim: Aim, x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor | None:
    """Channels in groups, each with its own mean and variance."""
    if aim.opset >= _PLUGIN_BELOW or aim.open_size:
        return None
    channels, *extents = sizes_of(x)[1:]
    grouped = x.reshape(-1, num_groups, channels // num_groups, *extents)
    axes = tuple(range(2, grouped.dim()))
    normal = _standardised(grouped, axes, eps).reshape(-1, channels, *extents)
    return _scaled(normal, weight, bias)


def instance_norm(aim: Aim, x: Tensor, **settings: Any) -> Tensor | None:
    """Each channel of each map with its own mean and variance; with running statistics a BatchNorm."""
    from torch.nn import functional

    weight, bias, eps = settings.get("weight"), settings.get("bias"), settings.get("eps", 1e-5)
    if not settings.get("use_input_stats", True):
        mean, variance = settings["running_mean"], settings["running_var"]
        return functional.batch_norm(x, mean, variance, weight, bias, eps=eps)
    if aim.opset >= _PLUGIN_BELOW:
        return None
    return _scaled(_standardised(x, tuple(range(2, x.dim())), eps), weight, bias)


def _standardised(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True) + eps).sqrt()


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Times a weight and plus a bias a channel."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)
