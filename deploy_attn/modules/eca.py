"""Efficient Channel Attention, with the kernel derived from the channels.

ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks,
arXiv 1910.03151, section 3.2 and equation (12).

The source sets no minimum, so fewer than 8 channels give a kernel of 1. It has
no bias. Key: `conv.weight`.

The export form lays the channels along the height of a 2-D map, `b 1 c 1`,
instead of transposing to `b 1 c` for a 1-D convolution: two static reshapes of
a vector, and no transposes.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, both, convolution
from deploy_attn.modules.channel_gate import APPLIED, ChannelGate, Elementwise, GateUse
from deploy_attn.modules.formulas import odd


class ECA(ReferenceForm):
    """x * sigmoid(conv1d over the channels of mean(x)), `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "eca"

    def __init__(self, channels: int, gamma: float = 2.0, beta: float = 1.0) -> None:
        super().__init__()
        self.channels = channels
        kernel_size = adaptive_kernel_size(channels, gamma, beta)
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return gated_by_neighbours(x, self.conv)


def adaptive_kernel_size(channels: int, gamma: float, beta: float) -> int:
    """Equation (12): |(log2(channels) + beta) / gamma|, truncated, made odd upwards."""
    return odd(abs((math.log2(channels) + beta) / gamma))


def gated_by_neighbours(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """x * sigmoid(the convolution over the channels of mean(x)), as the source computes it."""
    descriptor = x.mean((2, 3))[:, None, :]  # (B, 1, C)
    gate = torch.sigmoid(conv(descriptor))
    return x * gate.transpose(1, 2)[:, :, :, None]


class Neighbours(NamedTuple):
    """The convolutions over the channels, as layers of a map `b 1 c 1`.

    `inner`, where there is one, is 1x1 and has `activation` after it. `conv`
    pads with zeros, or not at all where the form itself goes `around`: the last
    channel is then the first one's neighbour, as many times over as the kernel reaches.
    """

    conv: nn.Conv2d
    gate: Elementwise
    around: int = 0
    inner: nn.Conv2d | None = None
    activation: Elementwise = torch.relu


class ECAExport(ChannelGate):
    """The channel convolution as a 2-D one over `b 1 c 1`."""

    def __init__(self, layers: Neighbours, shape: MapShape, use: GateUse = APPLIED) -> None:
        super().__init__(shape, use)
        self.inner = layers.inner
        self.activation = layers.activation
        self.around = layers.around
        self.conv = layers.conv
        self.gate = layers.gate

    def gate_of(self, descriptor: Tensor) -> Tensor:
        row = descriptor.reshape(-1, 1, self.channels, 1)
        if self.inner is not None:
            row = self.activation(self.inner(row))
        if self.around:
            row = torch.cat([row[:, :, self.channels - self.around :], row, row[:, :, : self.around]], 2)
        return self.gate(self.conv(row).reshape(-1, self.channels, 1, 1))


def eca_form(reference: ReferenceForm, shape: MapShape) -> ECAExport:
    """For a reference form with one convolution `conv` and a sigmoid."""
    parameters = dict(reference.named_parameters())
    weight = parameters["conv.weight"][:, :, :, None]
    conv = convolution(weight, parameters.get("conv.bias"), padding=(weight.shape[2] // 2, 0))
    return ECAExport(Neighbours(conv, torch.sigmoid), shape)


ECA.forms = both(eca_form)
