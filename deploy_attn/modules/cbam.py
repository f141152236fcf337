"""Convolutional Block Attention Module.

CBAM: Convolutional Block Attention Module, arXiv 1807.06521, sections 3.1, 3.2.

The source stacks the spatial descriptors as [mean, max] (the paper and the
authors' code as [max, mean]), uses Linear layers without biases, and has no
normalisation in the spatial gate. Keys: `channel_attention.fc.{0,2}.weight`,
`spatial_attention.conv.weight`.

The export form pools into `b c 1 1`, runs the first layer once over mean and
max side by side, and adds the two before the second layer, which is linear:
W2 relu(a) + W2 relu(m) = W2 (relu(a) + relu(m)). The sum of two is written as
twice their mean, and the 2 goes into W2, where it is exact.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import ReferenceForm, Shape, check_request, convolution, pointwise


class CBAM(ReferenceForm):
    """A channel gate, then a spatial gate, `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "cbam"

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 7) -> None:
        super().__init__()
        self.channels = channels
        self.channel_attention = _ChannelAttention(channels, reduction)
        self.spatial_attention = _SpatialAttention(kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_attention(x)
        return x * self.spatial_attention(x)

    def export_form(self, input_shape: Shape, engine: str = "cpu") -> nn.Module:
        check_request(self, input_shape, self.channels, engine)
        return CBAMExport(self, input_shape)


class _ChannelAttention(nn.Module):
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = self.fc(x.mean((2, 3)))
        largest = self.fc(x.amax((2, 3)))
        return torch.sigmoid(mean + largest)[:, :, None, None]


class _SpatialAttention(nn.Module):
    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        largest = x.amax(1, keepdim=True)
        return torch.sigmoid(self.conv(torch.cat([mean, largest], 1)))


class CBAMExport(nn.Module):
    """CBAM with one pass over each channel descriptor."""

    def __init__(self, reference: CBAM, input_shape: Shape) -> None:
        super().__init__()
        self.channel_gate = ChannelGate(
            reference.get_parameter("channel_attention.fc.0.weight"),
            reference.get_parameter("channel_attention.fc.2.weight"),
        )
        self.spatial_gate = cropped_convolution(reference.spatial_attention.conv, input_shape)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_gate(x)
        mean = x.mean(1, keepdim=True)
        largest = x.amax(1, keepdim=True)
        return x * torch.sigmoid(self.spatial_gate(torch.cat([mean, largest], 1)))


class ChannelGate(nn.Module):
    """sigmoid(W2 relu(W1 mean(x)) + W2 relu(W1 max(x))), `b c h w -> b c 1 1`.

    Takes the weights of both layers, `hidden c` and `c hidden`, trailing 1x1 allowed.
    """

    def __init__(self, reduce: Tensor, expand: Tensor) -> None:
        super().__init__()
        self.reduce = pointwise(reduce, None)
        self.expand = pointwise(2 * expand, None)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        largest = x.amax((2, 3), keepdim=True)
        hidden = torch.relu(self.reduce(torch.cat([mean, largest], 2)))  # (B, hidden, 2, 1)
        return torch.sigmoid(self.expand(hidden.mean(2, keepdim=True)))


def cropped_convolution(conv: nn.Conv2d, input_shape: Shape) -> nn.Conv2d:
    """The same convolution without the taps that only ever meet the padding.

    With `same` padding on a map of height H no output reaches further than
    H - 1 rows, so a kernel of more than 2H - 1 rows is cropped to that; columns alike.
    """
    weight = conv.weight
    reach_h = min(weight.shape[2] // 2, input_shape[2] - 1)
    reach_w = min(weight.shape[3] // 2, input_shape[3] - 1)
    middle_h, middle_w = weight.shape[2] // 2, weight.shape[3] // 2
    rows = slice(middle_h - reach_h, middle_h + reach_h + 1)
    columns = slice(middle_w - reach_w, middle_w + reach_w + 1)
    return convolution(weight[:, :, rows, columns], conv.bias, padding=(reach_h, reach_w))
