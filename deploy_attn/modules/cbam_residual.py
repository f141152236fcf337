"""CBAM with a large spatial kernel and a residual.

CBAM: Convolutional Block Attention Module, arXiv 1807.06521, sections 3.1, 3.2.

The source differs from the paper: 1x1 convolutions for the channel gate, a
spatial kernel of 49 by default, a bias in it, and the input added at the end.
It stacks [max, mean], the order of the paper. Keys: `ca.se.{0,2}.weight`,
`sa.conv.{weight,bias}`.

The export form shares CBAM's channel gate (see cbam.py for why it is equal)
and crops the kernel to the map: on 20x20, 49x49 becomes 39x39.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import ReferenceForm, Shape, check_request
from deploy_attn.modules.cbam import ChannelGate, cropped_convolution


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

    def export_form(self, input_shape: Shape, engine: str = "cpu") -> nn.Module:
        check_request(self, input_shape, self.channels, engine)
        return CBAMResidualExport(self, input_shape)


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


class CBAMResidualExport(nn.Module):
    """CBAMResidual with the shared channel gate and a cropped spatial kernel."""

    def __init__(self, reference: CBAMResidual, input_shape: Shape) -> None:
        super().__init__()
        self.channel_gate = ChannelGate(
            reference.get_parameter("ca.se.0.weight"), reference.get_parameter("ca.se.2.weight")
        )
        self.spatial_gate = cropped_convolution(reference.sa.conv, input_shape)

    def forward(self, x: Tensor) -> Tensor:
        gated = x * self.channel_gate(x)
        largest = gated.amax(1, keepdim=True)
        mean = gated.mean(1, keepdim=True)
        return gated * torch.sigmoid(self.spatial_gate(torch.cat([largest, mean], 1))) + x
