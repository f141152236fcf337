"""Global context, the export form.

GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond, arXiv
1904.11492, section 3.3, equation (6).

A context of each channel, its sum over the map weighted by a softmax over all
places, or its mean, goes through two layers with a norm between them; the
result scales the map, or is added to it, or one of each. Three exact steps:

1. The bias of the layer before the softmax is the same at every place, so the
   softmax does not see it: it is dropped.
2. A LayerNorm of `b hidden 1 1` subtracts the mean over the hidden channels.
   That is linear, so it is taken off the weights and the bias of the layer
   before; the rest of the norm is the mean of squares and a product, which
   engines without a LayerNormalization read.
3. The context is one matrix product with the softmax, without the extra axes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, pointwise, tokens
from deploy_attn.modules.cbam import Weights
from deploy_attn.modules.channel_gate import Elementwise


class Bottleneck(NamedTuple):
    """Two layers of a context, `hidden c` and `c hidden`, and what stands between them.

    Attributes:
        norm: a LayerNorm over the hidden channels, None where there is none.
        activation: after the norm.
    """

    reduce: Weights
    norm: nn.LayerNorm | None
    activation: Elementwise
    expand: Weights


class ContextLayers(NamedTuple):
    """The layers of a global context.

    Attributes:
        mask: `1 c 1 1`, before the softmax; None for the mean of the map.
        scale: the map is multiplied by the gate of this.
        shift: this is added to the map.
        gate: of `scale`.
    """

    mask: Tensor | None
    scale: Bottleneck | None
    shift: Bottleneck | None
    gate: Elementwise


class ContextGates(nn.Module):
    """x * gate(scale(context)) + shift(context), either of them or both, `b c h w -> b c h w`."""

    def __init__(self, layers: ContextLayers, shape: MapShape) -> None:
        super().__init__()
        self.shape = shape
        self.mask = None if layers.mask is None else pointwise(layers.mask, None)
        self.scale = None if layers.scale is None else _Context(layers.scale)
        self.shift = None if layers.shift is None else _Context(layers.shift)
        self.gate = layers.gate

    def forward(self, x: Tensor) -> Tensor:
        context = self._context(x)
        y = x
        if self.scale is not None:
            y = y * self.gate(self.scale(context))
        if self.shift is not None:
            y = y + self.shift(context)
        return y

    def _context(self, x: Tensor) -> Tensor:
        if self.mask is None:
            return x.mean((2, 3), keepdim=True)
        weights = torch.softmax(tokens(self.mask(x), 1, self.shape), 2)  # (B, 1, N)
        standing = weights.transpose(1, 2) if self.shape.area is None else weights.reshape(-1, self.shape.area, 1)
        summed = tokens(x, self.shape.channels, self.shape) @ standing  # (B, C, 1)
        return summed.reshape(-1, self.shape.channels, 1, 1)


class _Context(nn.Module):
    """expand(activation(norm(reduce(context)))), `b c 1 1 -> b c 1 1`."""

    def __init__(self, layers: Bottleneck) -> None:
        super().__init__()
        norm = layers.norm
        self.reduce = pointwise(*(layers.reduce if norm is None else _centred(layers.reduce)))
        self.expand = pointwise(*layers.expand)
        self.activation = layers.activation
        self.eps = None if norm is None else norm.eps
        for name in ("weight", "bias"):
            value = getattr(norm, name, None)
            self.register_buffer(name, None if value is None else value.detach().reshape(1, -1, 1, 1).clone())

    def forward(self, context: Tensor) -> Tensor:
        hidden = self.reduce(context)
        if self.eps is not None:
            hidden = hidden * torch.rsqrt((hidden * hidden).mean(1, keepdim=True) + self.eps)
        if self.weight is not None:
            hidden = hidden * self.weight
        if self.bias is not None:
            hidden = hidden + self.bias
        return self.expand(self.activation(hidden))


def _centred(weights: Weights) -> Weights:
    """The layer whose outputs are those of another less their mean."""
    weight, bias = weights
    return weight - weight.mean(0, keepdim=True), None if bias is None else bias - bias.mean()
