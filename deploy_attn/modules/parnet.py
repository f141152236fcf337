"""ParNet attention.

Non-deep Networks, arXiv 2110.07641, section 3.1 (the RepVGG-SSE block).

The source adds three branches, a 1x1 convolution, a 3x3 convolution and the map
gated by one squeezed channel layer, and ends with SiLU. Its convolutions have a
bias although a BatchNorm follows, and its gated branch is `gate(x) * x` without
the BatchNorm that the paper's block has there. Keys: `sse.1.*`,
`conv1x1.{0,1}.*`, `conv3x3.{0,1}.*`.

The export form has one 3x3 convolution for both: each BatchNorm is folded into
its convolution, and a 1x1 kernel is a 3x3 kernel whose other eight taps are
zero, so the two kernels and the two biases add up. The gate depends on the
input, so its branch stays beside it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.modules.base import MapShape, ReferenceForm, both, convolution, fold_norm, pointwise


class ParNet(ReferenceForm):
    """silu(bn(conv1x1(x)) + bn(conv3x3(x)) + x * sigmoid(W mean(x))), `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "parnet"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.sse = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())
        self.conv1x1 = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.conv3x3 = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.silu = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        pointwise_branch = self.conv1x1(x)
        local_branch = self.conv3x3(x)
        gated_branch = self.sse(x) * x
        return self.silu(pointwise_branch + local_branch + gated_branch)


class ParNetExport(nn.Module):
    """ParNet with one convolution and the gated branch."""

    def __init__(self, reference: ParNet, shape: MapShape) -> None:
        super().__init__()
        self.gate = pointwise(reference.get_parameter("sse.1.weight"), reference.get_parameter("sse.1.bias"))
        kernel, bias = fold_norm(*reference.conv3x3)
        centre, centre_bias = fold_norm(*reference.conv1x1)
        self.conv = convolution(kernel + functional.pad(centre, [1, 1, 1, 1]), bias + centre_bias, padding=(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return functional.silu(self.conv(x) + x * gate)


ParNet.forms = both(ParNetExport)
