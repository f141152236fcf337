"""Frequency Channel Attention.

FcaNet: Frequency Channel Attention Networks, arXiv 2012.11879, section 3.

The source splits the channels into as many parts as there are frequencies and
takes one coefficient of the discrete cosine transform of each channel. A map of
another size than the transform's is pooled to it first; where that does not
divide the map, the bins overlap. Frequencies were chosen on 7x7 and are
multiplied by dct_height // 7 and dct_width // 7, so that below 7 every one of them
is zero. The cosines are a buffer, and a checkpoint's own are used. Keys:
`dct_layer.weight`, `fc.0.weight`, `fc.2.weight`.

The export form has no pooling. Both it and the transform are linear, so they
are one weight of each place of the map, and the map is read once and nothing of
its size is written. Channels of one part share their weights; where the buffer
says so, those are stored once. The families differ in the weighted sum: CPUs
are fastest with a matrix product for each part, GPUs need the fewest kernels
and bytes with a product and a mean. For the mean the weights are multiplied by
h * w and divided by a power of two that makes the largest at most one, and the
matrix after it is multiplied by that: no product, and no mean, is larger than x,
and no weight is lost below FP16's normal numbers because the map is large.
"""

from __future__ import annotations

import abc
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.modules.base import MapShape, ReferenceForm, pointwise

_ROWS = (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2)
_COLUMNS = (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2)
_CHOSEN_ON = 7  # extent of the map that the frequencies were ranked on


class FCA(ReferenceForm):
    """x * sigmoid(W2 relu(W1 dct(pool(x)))), `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "fca"

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        dct_height: int = 7,
        dct_width: int = 7,
        frequencies: str = "top16",
    ) -> None:
        super().__init__()
        self.channels = channels
        self.reduction = reduction
        self.dct_height = dct_height
        self.dct_width = dct_width
        self.frequencies = frequencies
        self.dct_layer = _DCT(channels, dct_height, dct_width, int(frequencies[3:]))
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = x
        if x.shape[2] != self.dct_height or x.shape[3] != self.dct_width:
            pooled = functional.adaptive_avg_pool2d(x, (self.dct_height, self.dct_width))
        gate = self.fc(self.dct_layer(pooled))[:, :, None, None]
        return x * gate.expand_as(x)


class _DCT(nn.Module):
    """One coefficient of each channel, `b c h w -> b c`."""

    def __init__(self, channels: int, height: int, width: int, frequencies: int) -> None:
        super().__init__()
        parts = [
            torch.outer(_cosines(row * (height // _CHOSEN_ON), height), _cosines(column * (width // _CHOSEN_ON), width))
            for row, column in zip(_ROWS[:frequencies], _COLUMNS[:frequencies])
        ]
        weight = torch.stack(parts).repeat_interleave(channels // frequencies, 0)
        self.register_buffer("weight", weight.to(torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.get_buffer("weight")).sum((2, 3))


def _cosines(frequency: int, extent: int) -> Tensor:
    """A row of the orthonormal DCT-II, in float64."""
    places = torch.arange(extent, dtype=torch.float64) + 0.5
    wave = torch.cos(math.pi * frequency * places / extent) / math.sqrt(extent)
    return wave * math.sqrt(2) if frequency else wave


class _FCAExport(nn.Module, abc.ABC):
    """FCA whose pooling and transform are one constant; a family chooses the weighted sum."""

    def __init__(self, reference: FCA, shape: MapShape) -> None:
        super().__init__()
        filters = _filters(reference, shape)
        self.channels = shape.channels
        self.parts, self.area = filters.shape
        gain = self.gain(filters)
        self.register_buffer("filters", self.laid_out(filters / gain))
        self.reduce = pointwise(reference.get_parameter("fc.0.weight") * gain, None)
        self.expand = pointwise(reference.get_parameter("fc.2.weight"), None)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.reshape(-1, self.parts, self.channels // self.parts, self.area)
        descriptor = self.weighted_sum(parts).reshape(-1, self.channels, 1, 1)
        hidden = torch.relu(self.reduce(descriptor))
        return x * torch.sigmoid(self.expand(hidden))

    @abc.abstractmethod
    def gain(self, filters: Tensor) -> float:
        """What the filters, `parts n`, are divided by, and the descriptor is multiplied by again."""

    @abc.abstractmethod
    def laid_out(self, filters: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def weighted_sum(self, parts: Tensor) -> Tensor:
        """`b parts channels n -> b parts channels 1`."""


class FCAProduct(_FCAExport):
    """FCA with a matrix product for each part, for CPUs."""

    def gain(self, filters: Tensor) -> float:
        return 1.0

    def laid_out(self, filters: Tensor) -> Tensor:
        return filters[:, :, None]

    def weighted_sum(self, parts: Tensor) -> Tensor:
        return parts @ self.get_buffer("filters")


class FCAMean(_FCAExport):
    """FCA with a product and a mean over the map, for GPUs."""

    def gain(self, filters: Tensor) -> float:
        _, exponent = torch.frexp(filters.abs().amax() * self.area)
        return 2.0 ** int(exponent)

    def laid_out(self, filters: Tensor) -> Tensor:
        return self.area * filters[:, None, :]

    def weighted_sum(self, parts: Tensor) -> Tensor:
        return (parts * self.get_buffer("filters")).mean(3, keepdim=True)


def _for_cpu(reference: FCA, shape: MapShape) -> nn.Module:
    """A matrix product of a single row is the slowest way on a CPU, so channels that share nothing take the mean."""
    alone = len(_shared_weight(reference)) == shape.channels
    return FCAMean(reference, shape) if alone else FCAProduct(reference, shape)


def _filters(reference: FCA, shape: MapShape) -> Tensor:
    """The weight of each place, `parts n`."""
    height, width = shape.known_size
    weight = _shared_weight(reference)
    rows, columns = _bins(reference.dct_height, height, weight), _bins(reference.dct_width, width, weight)
    return (rows.t() @ weight @ columns).flatten(1)


def _shared_weight(reference: FCA) -> Tensor:
    """The transform's weights, `parts h w`; as many parts as channels where those of one part differ."""
    weight = reference.get_buffer("dct_layer.weight")
    members = weight.unflatten(0, (int(reference.frequencies[3:]), -1))  # (parts, C / parts, h, w)
    shared = torch.equal(members, members[:, :1].expand_as(members))
    return members[:, 0] if shared else weight


def _bins(count: int, extent: int, like: Tensor) -> Tensor:
    """Adaptive average pooling of a row as a matrix `bins extent`; bins overlap where count does not divide extent."""
    bins = torch.arange(count, device=like.device)
    starts, ends = bins * extent // count, -(-(bins + 1) * extent // count)
    places = torch.arange(extent, device=like.device)
    inside = (places >= starts[:, None]) & (places < ends[:, None])
    return inside.to(like.dtype) / (ends - starts)[:, None]


FCA.forms = {"cpu": _for_cpu, "gpu": FCAMean}
