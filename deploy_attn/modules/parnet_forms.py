"""The block of the official ParNet: RepVGG branches and a squeezed gate.

Non-deep Networks, arXiv 2110.07641, section 3.1 (the RepVGG-SSE block).

A block that keeps channels and size has a third branch, the map after a
BatchNorm, and the gate, computed from that branch, is for it alone. Another
block gates the sum of its two convolutions by twice the gate of its input.
Grouped blocks end with a channel shuffle. Three exact steps:

1. Each BatchNorm is folded, and the 1x1 kernel is the middle of the 3x3 one; a
   2x2 average before it makes it four equal taps of a stride of 2.
2. The third branch is a x + s and its mean a mean(x) + s, and (a x + s) g is
   x (a g) + s g: two small products instead of another map.
3. A shuffle is one Gather of the channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.modules.base import affine_of_norm
from deploy_attn.modules.own_layers import Block


class RepParts(NamedTuple):
    """The layers of a block.

    Attributes:
        dense: the 3x3 convolution.
        centre: the 1x1 convolution; None where it is in the other one already.
        averages: it takes 2x2 averages.
        gate: the layer of the squeezed gate.
        identity: the BatchNorm that is the third branch, where there is one.
        activation: of the sum.
        shuffles: the block ends with a shuffle of the groups.
    """

    dense: Block
    centre: Block | None
    averages: bool
    gate: Block
    identity: nn.BatchNorm2d | None
    activation: nn.Module
    shuffles: bool


def rep_form(parts: RepParts) -> nn.Module:
    """The export form for these layers.

    Raises:
        BadRequest: the convolutions do not fit each other, or a BatchNorm keeps no statistics.
    """
    return _GatedSum(parts) if parts.identity is None else _GatedIdentity(parts, parts.identity)


class _RepForm(nn.Module):
    def __init__(self, parts: RepParts) -> None:
        super().__init__()
        self.conv = _merged(parts)
        self.gate = parts.gate.convolution()
        self.activation = parts.activation
        self.shuffles = parts.shuffles
        order = torch.arange(self.conv.out_channels).reshape(self.conv.groups, -1).t().flatten()
        self.register_buffer("order", order)

    def _ended(self, y: Tensor) -> Tensor:
        activated: Tensor = self.activation(y)
        return activated.index_select(1, self.get_buffer("order")) if self.shuffles else activated


class _GatedSum(_RepForm):
    """activation(conv(x) * 2 sigmoid(W mean(x)))."""

    def forward(self, x: Tensor) -> Tensor:
        gate = 2 * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self._ended(self.conv(x) * gate)


class _GatedIdentity(_RepForm):
    """activation(conv(x) + y sigmoid(W mean(y))), y = a x + s."""

    def __init__(self, parts: RepParts, identity: nn.BatchNorm2d) -> None:
        super().__init__(parts)
        scale, shift = affine_of_norm(identity)
        self.register_buffer("scale", scale.reshape(1, -1, 1, 1))
        self.register_buffer("shift", shift.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        gate = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True) * scale + shift))
        return self._ended(self.conv(x) + x * (gate * scale) + gate * shift)


def _merged(parts: RepParts) -> nn.Conv2d:
    """Both convolutions as one, with the bias of both."""
    conv = parts.dense.convolution()
    if parts.centre is None:
        return conv
    weight, bias = parts.centre.folded()
    if conv.kernel_size != (3, 3) or weight.shape != (*conv.weight.shape[:2], 1, 1):
        raise BadRequest("A ParNet block has a 3x3 and a 1x1 convolution of the same channels and groups.")
    taps = functional.pad(weight.expand(-1, -1, 2, 2) / 4, [1, 0, 1, 0])
    conv.weight = nn.Parameter(
        conv.weight + (taps if parts.averages else functional.pad(weight, [1, 1, 1, 1])), requires_grad=False
    )
    biases = [own for own in (conv.bias, bias) if own is not None]
    conv.bias = nn.Parameter(sum(biases, weight.new_zeros(len(weight))), requires_grad=False)
    return conv
