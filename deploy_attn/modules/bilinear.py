"""Bilinear attention over channel pairs.

Bilinear Attention Networks for Person Retrieval, ICCV 2019, no arXiv version:
the Bi-attention block.

The source reduces the channels to c' = channels // 16, multiplies every pair of
them at each place, and attends to those products twice: at the place itself
(layer 2) and through their global average (layer 3). A pair stands once, in the
order of the diagonals of the outer product, from the main one downwards. Each
layer is a 1x1 convolution with a bias, a BatchNorm and a ReLU, also the two
whose product the sigmoid takes, so that no gate is below one half. Keys:
`dimReduceLayer{1,2,3}.conv.conv.*`, `dimReduceLayer{1,2,3}.conv.bn.*`.

The export form never builds the outer product. Two exact steps:

1. Each pair is read off the channels directly: two Gathers with constant
   indices and one product, in the order of the diagonals.
2. Each BatchNorm is folded into the convolution before it.

For GPUs the three layers are matrix products over `b c n` instead of
convolutions over `b c h w`: a 1x1 convolution is that product, and without
convolutions nothing asks for another memory layout, so the builder needs no
transposing copies and fuses what stands between the products. A CPU is faster
with convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, fold_norm, pointwise, tokens
from deploy_attn.modules.tokens_attention import Projection

_REDUCTION = 16


class Bilinear(ReferenceForm):
    """x * sigmoid(global attention * local attention), both from products of channels, `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "bilinear"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        reduced = channels // _REDUCTION
        pairs = reduced * (reduced + 1) // 2
        self.dimReduceLayer1 = _DimReduceLayer(channels, reduced)
        self.dimReduceLayer2 = _DimReduceLayer(pairs, channels)
        self.dimReduceLayer3 = _DimReduceLayer(pairs, channels)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        products = _products_of_pairs(self.dimReduceLayer1(x))
        local = self.dimReduceLayer2(products)
        overall = self.dimReduceLayer3(self.pool(products))
        return x * torch.sigmoid(overall * local)


class _DimReduceLayer(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = _ConvBlock(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        reduced: Tensor = self.conv(x)
        return reduced


class _ConvBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.relu(self.bn(self.conv(x)))
        return activated


def _products_of_pairs(x: Tensor) -> Tensor:
    """The diagonals on and below the main one of the outer product at each place, `b c h w -> b pairs h w`."""
    outer = x.unsqueeze(2) * x.unsqueeze(1)  # (B, C', C', H, W)
    diagonals = [outer.diagonal(-offset, 1, 2) for offset in range(x.shape[1])]
    return torch.cat(diagonals, 3).permute(0, 3, 1, 2).contiguous()


class _BilinearExport(nn.Module):
    """The gate, with two Gathers and one product for all pairs; a family chooses what its three layers are."""

    def __init__(self, reference: Bilinear, layer: Callable[[Tensor, Tensor], nn.Module]) -> None:
        super().__init__()
        self.reduce, self.local, self.overall = (
            layer(*fold_norm(block.conv, block.bn))
            for block in (
                reference.dimReduceLayer1.conv,
                reference.dimReduceLayer2.conv,
                reference.dimReduceLayer3.conv,
            )
        )
        channels = torch.arange(reference.channels // _REDUCTION)
        count = len(channels)
        self.register_buffer("lower", torch.cat([channels[offset:] for offset in range(count)]))
        self.register_buffer("upper", torch.cat([channels[: count - offset] for offset in range(count)]))

    def gate(self, x: Tensor) -> Tensor:
        """Of a map with its places on one axis or two, behind its channels."""
        reduced = torch.relu(self.reduce(x))
        lower = reduced.index_select(1, self.get_buffer("lower"))
        products = lower * reduced.index_select(1, self.get_buffer("upper"))
        places = tuple(range(2, x.dim()))
        overall = torch.relu(self.overall(products.mean(places, keepdim=True)))
        return torch.sigmoid(overall * torch.relu(self.local(products)))


class BilinearCpu(_BilinearExport):
    """With 1x1 convolutions."""

    def __init__(self, reference: Bilinear, shape: MapShape) -> None:
        super().__init__(reference, pointwise)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class BilinearGpu(_BilinearExport):
    """With matrix products over `b c n`."""

    def __init__(self, reference: Bilinear, shape: MapShape) -> None:
        super().__init__(reference, Projection)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        flat = tokens(x, self.shape.channels, self.shape)
        return x * self.gate(flat).view_as(x)


Bilinear.forms = {"cpu": BilinearCpu, "gpu": BilinearGpu}
