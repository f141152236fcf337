"""Convolutional Block Attention Module.

CBAM: Convolutional Block Attention Module, arXiv 1807.06521, sections 3.1, 3.2.

The source stacks the spatial descriptors as [mean, max], as the paper does (the
authors' code as [max, mean]), uses Linear layers without biases, and has no
normalisation in the spatial gate. Keys: `channel_attention.fc.{0,2}.weight`,
`spatial_attention.conv.weight`.

The export form takes five exact steps, the last two for CPUs only:

1. The descriptors stay `b c 1 1`, and the first layer of the channel gate runs
   once over mean and max side by side.
2. The second layer is linear: W2 relu(a) + W2 relu(m) is one convolution over
   the two, with W2 at both of its taps.
3. The spatial convolution is the sum of one over the means and one over the
   maxima: [mean, max] is never joined, so both come out of one pass over the
   map. Taps that only ever meet the padding are cut off.
4. Mean and max over the channels are taken in a few equal parts first and then
   over the parts: the mean of equal parts' means is the mean. A CPU reduces one
   batch of many channels several times slower than a batch of a few parts.
5. A kernel that makes a single channel leaves the lanes of a CPU empty. With
   the columns of the map as channels, the same sum is a convolution along the
   rows from 2 w channels to w, whose matrix is zero outside a band. That is
   more multiplications and far less time, up to a width. (A value that is not
   finite reaches all columns of its rows then, not only those of the kernel.)

A GPU reduces in parallel as it is, and would have to transpose the planes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, convolution, pointwise
from deploy_attn.modules.channel_gate import Elementwise

Weights = tuple[Tensor, Tensor | None]  # of a layer, and its bias
Extents = tuple[int | None, int | None]  # rows and columns of a plane; None where they are open


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


class TwoGates(nn.Module):
    """x * channel gate * spatial gate, the second made of the map that the first has gated."""

    def __init__(self, channel_gate: nn.Module, spatial_gate: nn.Module) -> None:
        super().__init__()
        self.channel_gate = channel_gate
        self.spatial_gate = spatial_gate

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_gate(x)
        gated: Tensor = x * self.spatial_gate(x)
        return gated


class SpatialFirst(TwoGates):
    """x * spatial gate * channel gate, the second made of the map that the first has gated."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.spatial_gate(x)
        gated: Tensor = x * self.channel_gate(x)
        return gated


def mean_of_map(x: Tensor) -> Tensor:
    """`b c h w -> b c 1 1`."""
    return x.mean((2, 3), keepdim=True)


def largest_of_map(x: Tensor) -> Tensor:
    """`b c h w -> b c 1 1`."""
    return x.amax((2, 3), keepdim=True)


def half_sum_of_map(x: Tensor) -> Tensor:
    """Half the mean and half the maximum in one descriptor, `b c h w -> b c 1 1`."""
    return (mean_of_map(x) + largest_of_map(x)) * 0.5


def norm_of_map(x: Tensor) -> Tensor:
    """The square root of the sum of squares, `b c h w -> b c 1 1`."""
    return torch.sqrt((x * x).sum((2, 3), keepdim=True))


def log_sum_exp_of_map(x: Tensor) -> Tensor:
    """The logarithm of the sum of exponentials, none of which is above 1, `b c h w -> b c 1 1`."""
    largest = largest_of_map(x)
    return largest + torch.exp(x - largest).sum((2, 3), keepdim=True).log()


class ChannelGate(nn.Module):
    """gate(W2 hidden(W1 mean(x)) + W2 hidden(W1 max(x))), `b c h w -> b c 1 1`, or the sum over other descriptors.

    Takes the weights of both layers, `hidden c` and `c hidden`, trailing 1x1
    allowed, or of one layer alone, `c c`. Each descriptor brings the bias of
    the last layer into the sum.
    """

    def __init__(
        self,
        layers: Sequence[Weights],
        descriptors: Sequence[Elementwise] = (mean_of_map, largest_of_map),
        hidden: Elementwise = torch.relu,
        gate: Elementwise = torch.sigmoid,
    ) -> None:
        super().__init__()
        *inner, (expand, bias) = layers
        of_each = expand.reshape(*expand.shape[:2], 1, 1)
        repeated = torch.cat([of_each] * len(descriptors), 2)
        self.descriptors = tuple(descriptors)
        self.reduce = pointwise(*inner[0]) if inner else None
        self.expand = convolution(repeated, None if bias is None else bias * len(descriptors), padding=(0, 0))
        self.hidden = hidden
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        taken = [descriptor(x) for descriptor in self.descriptors]
        joined = taken[0] if len(taken) == 1 else torch.cat(taken, 2)  # (B, C, descriptors, 1)
        if self.reduce is not None:
            joined = self.hidden(self.reduce(joined))
        return self.gate(self.expand(joined))


class SpatialGate(nn.Module):
    """gate(convolution of [mean over c, max over c]), `b c h w -> b 1 h w`.

    Takes the weight `1 2 k k`, mean first, and the bias.
    """

    def __init__(
        self, weights: Weights, shape: MapShape, pieces: GatePieces, gate: Elementwise = torch.sigmoid
    ) -> None:
        super().__init__()
        self.pool = pieces.pooling(shape)
        self.conv = pieces.convolution(*weights, (shape.height, shape.width))
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.conv(*self.pool(x)))


class Gated(nn.Module):
    """x * gate(x)."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = x * self.gate(x)
        return gated


class InTurn(nn.Module):
    """Two activations, one after the other."""

    def __init__(self, first: Elementwise, then: Elementwise) -> None:
        super().__init__()
        self.first = first
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.first(x))


class Pooling(nn.Module):
    """Mean and max over the channels, `b c h w -> b 1 h w`, twice."""

    def __init__(self, shape: MapShape) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean(1, keepdim=True), x.amax(1, keepdim=True)


class PoolingInParts(nn.Module):
    """Pooling in two stages, over equal parts of the channels and then over the parts."""

    def __init__(self, shape: MapShape) -> None:
        super().__init__()
        self.shape = shape
        self.parts = next((parts for parts in (4, 2, 3, 5, 7) if shape.channels % parts == 0), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, area = (x.shape[0], -1) if self.shape.area is None else (-1, self.shape.area)
        parts = x.reshape(batch, self.parts, self.shape.channels // self.parts, area)
        mean, largest = parts.mean(2).mean(1), parts.amax(2).amax(1)  # (B, HW)
        return self._plane(mean, x), self._plane(largest, x)

    def _plane(self, pooled: Tensor, x: Tensor) -> Tensor:
        if self.shape.area is None:
            return pooled.view_as(x[:, :1])
        return pooled.reshape(-1, 1, *self.shape.known_size)


class PlanesConvolution(nn.Module):
    """A convolution of two planes to one, as the sum of one of each, `b 1 h w`, `b 1 h w -> b 1 h w`.

    Takes the weight `1 2 kh kw`, the bias, and the height and width of the planes, None where they are open.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, extents: Extents) -> None:
        super().__init__()
        self.first = cropped_convolution(weight[:, :1], bias, extents)
        self.second = cropped_convolution(weight[:, 1:], None, extents)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        convolved: Tensor = self.first(first) + self.second(second)
        return convolved


class BandedConvolution(nn.Module):
    """PlanesConvolution with the columns as channels, along the rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None, height: int, width: int) -> None:
        super().__init__()
        rows, reach = _reached(weight.shape[2], height)
        band = _banded(weight[0, :, rows], width)
        biases = None if bias is None else bias.expand(width)
        self.conv = convolution(band.reshape(width, 2 * width, 1, -1), biases, padding=(0, reach))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        columns = torch.cat([first, second], 3).permute(0, 3, 1, 2)  # (B, 2W, 1, H)
        convolved: Tensor = self.conv(columns).permute(0, 2, 3, 1)
        return convolved


def planes_convolution_for_cpu(weight: Tensor, bias: Tensor | None, extents: Extents) -> nn.Module:
    """The form of PlanesConvolution that is faster on a CPU.

    The band takes width / kernel width times the multiplications, and memory
    that grows with width^2: beyond the limits here it was measured to lose, or
    to weigh megabytes.
    """
    height, width = extents
    if height is None or width is None or width > min(12 * weight.shape[3], 128):
        return PlanesConvolution(weight, bias, extents)
    return BandedConvolution(weight, bias, height, width)


def _banded(kernel: Tensor, width: int) -> Tensor:
    """`2 kh kw -> width 2 width kh`: the weight from each input column to each output column, 0 out of reach."""
    kernel_width = kernel.shape[2]
    columns = torch.arange(width, device=kernel.device)
    taps = columns[None] - columns[:, None] + kernel_width // 2  # (output, input)
    reached = (taps >= 0) & (taps < kernel_width)
    values = kernel.detach()[:, :, taps.clamp(0, kernel_width - 1)] * reached
    return values.permute(2, 0, 3, 1)


def cropped_convolution(weight: Tensor, bias: Tensor | None, extents: Extents, groups: int = 1) -> nn.Conv2d:
    """A convolution with `same` padding, without the taps that only ever meet the padding.

    On a map of height H no output reaches further than H - 1 rows, so a kernel
    of more than 2H - 1 rows is cropped to that; columns alike. Where the size
    is open, the kernel stays whole.
    """
    rows, reach_h = _reached(weight.shape[2], extents[0])
    columns, reach_w = _reached(weight.shape[3], extents[1])
    return convolution(weight[:, :, rows, columns], bias, (reach_h, reach_w), groups)


def _reached(kernel_size: int, extent: int | None) -> tuple[slice, int]:
    """The taps that meet a map of this extent, and how far they reach from the middle."""
    middle = kernel_size // 2
    reach = middle if extent is None else min(middle, extent - 1)
    return slice(middle - reach, middle + reach + 1), reach


class GatePieces(NamedTuple):
    """What a family makes a spatial gate of."""

    pooling: Callable[[MapShape], nn.Module]  # of a map to two planes, mean and max
    convolution: Callable[[Tensor, Tensor | None, Extents], nn.Module]  # of two planes


PIECES: Mapping[str, GatePieces] = MappingProxyType(
    {
        "cpu": GatePieces(PoolingInParts, planes_convolution_for_cpu),
        "gpu": GatePieces(Pooling, PlanesConvolution),
    }
)


class CBAMCpu(TwoGates):
    """CBAM whose spatial gate is laid out for the lanes of a CPU."""

    def __init__(self, reference: CBAM, shape: MapShape) -> None:
        super().__init__(*_gates(reference, shape, PIECES["cpu"]))


class CBAMGpu(TwoGates):
    """CBAM whose spatial gate neither joins nor transposes the planes."""

    def __init__(self, reference: CBAM, shape: MapShape) -> None:
        super().__init__(*_gates(reference, shape, PIECES["gpu"]))


def _gates(reference: CBAM, shape: MapShape, pieces: GatePieces) -> tuple[ChannelGate, SpatialGate]:
    reduce, expand, conv = (parameter.detach() for parameter in reference.parameters())
    return ChannelGate([(reduce, None), (expand, None)]), SpatialGate((conv, None), shape, pieces)


CBAM.forms = {"cpu": CBAMCpu, "gpu": CBAMGpu}
