"""CBAM with a large spatial kernel and a residual.

CBAM: Convolutional Block Attention Module, arXiv 1807.06521, sections 3.1, 3.2.

The source differs from the paper: 1x1 convolutions for the channel gate, a
spatial kernel of 49 by default, a bias in it, and the input added at the end.
It stacks [max, mean], as the authors' code does and the paper does not. Keys: `ca.se.{0,2}.weight`,
`sa.conv.{weight,bias}`.

The export form is CBAM's (see cbam.py for its steps and why they are equal); the
two slices of the kernel are swapped, since the gate takes [mean, max]. The large
kernel gains most: cropped to the map, 49x49 becomes 39x39 on 20x20, and with
the columns as channels, on CPUs, it takes a tenth of the time. For GPUs,
x a b + x is x (a b + 1): the map gated by the first gate is read by the second
and never written.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm
from deploy_attn.modules.cbam import PIECES, ChannelGate, GatePieces, SpatialGate, TwoGates


class CBAMResidual(ReferenceForm):
    """x + x * channel gate * spatial gate, `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "cbam_residual"

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 49) -> None:
        super().__init__()
        self.channels = channels
        self.ca = _ChannelAttention(channels, reduction)
        self.sa = _SpatialAttention(kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        gated = x * self.ca(x)
        return gated * self.sa(gated) + x


class _ChannelAttention(nn.Module):
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.se = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        largest = self.se(x.amax((2, 3), keepdim=True))
        mean = self.se(x.mean((2, 3), keepdim=True))
        return torch.sigmoid(largest + mean)


class _SpatialAttention(nn.Module):
    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        largest = x.amax(1, keepdim=True)
        mean = x.mean(1, keepdim=True)
        return torch.sigmoid(self.conv(torch.cat([largest, mean], 1)))


class TwoGatesAdded(TwoGates):
    """TwoGates and a residual, for CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        gated = x * self.channel_gate(x)
        added: Tensor = gated * self.spatial_gate(gated) + x
        return added


class TwoGatesAsOne(TwoGates):
    """TwoGates and a residual, which never writes the map between the gates, for GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        gate = self.channel_gate(x)
        scaled: Tensor = x * (gate * self.spatial_gate(x * gate) + 1)
        return scaled


class CBAMResidualCpu(TwoGatesAdded):
    """CBAMResidual whose spatial gate is laid out for the lanes of a CPU."""

    def __init__(self, reference: CBAMResidual, shape: MapShape) -> None:
        super().__init__(*_gates(reference, shape, PIECES["cpu"]))


class CBAMResidualGpu(TwoGatesAsOne):
    """CBAMResidual that never writes the map between the gates."""

    def __init__(self, reference: CBAMResidual, shape: MapShape) -> None:
        super().__init__(*_gates(reference, shape, PIECES["gpu"]))


def _gates(reference: CBAMResidual, shape: MapShape, pieces: GatePieces) -> tuple[ChannelGate, SpatialGate]:
    reduce, expand, conv, bias = (parameter.detach() for parameter in reference.parameters())
    return ChannelGate([(reduce, None), (expand, None)]), SpatialGate((conv.flip(1), bias), shape, pieces)


CBAMResidual.forms = {"cpu": CBAMResidualCpu, "gpu": CBAMResidualGpu}
