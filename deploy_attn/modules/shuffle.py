"""Shuffle Attention.

SA-Net: Shuffle Attention for Deep Convolutional Neural Networks, arXiv 2102.00240,
section 3, equations (1) to (5).

The source gives every group of channels the same weights, starts with gates of
sigmoid(1) (both weights zero, both biases one), and fails on channels_last maps,
since it views them; here they are reshaped. Its GroupNorm has as many groups as
channels. Keys: `cweight`, `cbias`, `sweight`, `sbias` (each `1 c/2g 1 1`) and
`gn.{weight,bias}`.

The export form never folds the groups into the batch: the weights are repeated
for each group instead. A GroupNorm of one channel a group is an InstanceNorm of
all of them, and its affine map followed by sweight and sbias is one affine map.
The shuffle at the end sends channel p to 2 (p mod c/2) + p div (c/2).

On a CPU each half of the channels is picked in the order in which it leaves
(one copy, as a split would be). For an even number of groups the output is then
runs of c/g channels, gated by their mean and by their places in turn, and one
concatenation of runs both joins and shuffles. An odd number has no such runs:
its halves are joined and picked once more. The normalisation is one
InstanceNormalization.

On a GPU every channel goes through one expression, whose weights are zero where
the other kind of gate is meant: sigmoid(a (x - mean) / deviation + b mean + d),
and the channels are picked at the end: two kernels. The variance is the mean of
squared deviations, never a difference of two large means.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm


class Shuffle(ReferenceForm):
    """Half of each group gated by its mean, half by its normalised self, then shuffled, `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "shuffle"

    def __init__(self, channels: int, groups: int = 8) -> None:
        super().__init__()
        self.channels = channels
        self.groups = groups
        part = _part(self)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.gn = nn.GroupNorm(part, part)
        self.cweight = nn.Parameter(torch.zeros(1, part, 1, 1))
        self.cbias = nn.Parameter(torch.ones(1, part, 1, 1))
        self.sweight = nn.Parameter(torch.zeros(1, part, 1, 1))
        self.sbias = nn.Parameter(torch.ones(1, part, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        grouped = x.reshape(batch * self.groups, -1, height, width)
        by_channel, by_place = grouped.chunk(2, 1)
        gated = by_channel * torch.sigmoid(self.cweight * self.avg_pool(by_channel) + self.cbias)
        normed = torch.group_norm(by_place, self.gn.num_groups, self.gn.weight, self.gn.bias, self.gn.eps)
        focused = by_place * torch.sigmoid(self.sweight * normed + self.sbias)
        joined = torch.cat([gated, focused], 1).reshape(batch, -1, height, width)
        return _shuffled(joined, 2)


def _shuffled(x: Tensor, groups: int) -> Tensor:
    """The channels of each group dealt out in turn."""
    batch, _, height, width = x.shape
    dealt = x.reshape(batch, groups, -1, height, width).permute(0, 2, 1, 3, 4)
    return dealt.reshape(batch, -1, height, width)


class ShuffleCpu(nn.Module):
    """Shuffle in two halves, each in the order in which it leaves."""

    def __init__(self, reference: Shuffle, shape: MapShape) -> None:
        super().__init__()
        part, order = _part(reference), _order(reference)
        gated, focused = order[order % (2 * part) < part], order[order % (2 * part) >= part]
        scale, shift = _affine(reference)
        self.open = shape.area is None
        self.eps = reference.gn.eps
        self.run = 2 * part if reference.groups % 2 == 0 else None
        self.register_buffer("gated", gated)
        self.register_buffer("focused", focused)
        self.register_buffer("weight", _repeated(reference.cweight, gated))
        self.register_buffer("bias", _repeated(reference.cbias, gated))
        self.register_buffer("scale", scale[focused % part])
        self.register_buffer("shift", shift[focused % part])
        self.register_buffer("places", torch.cat([gated, focused]).argsort()[order])

    def forward(self, x: Tensor) -> Tensor:
        by_channel = x.index_select(1, self.get_buffer("gated"))
        by_place = x.index_select(1, self.get_buffer("focused"))
        mean = by_channel.mean((2, 3), keepdim=True)
        gated = by_channel * torch.sigmoid(mean * self.get_buffer("weight") + self.get_buffer("bias"))
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        # The function of nn.functional refuses a map of 1x1, whose normalised value is the shift.
        normed = torch.instance_norm(by_place, scale, shift, None, None, True, 0.0, self.eps, False)
        return self._joined(gated, by_place * torch.sigmoid(normed), x)

    def _joined(self, gated: Tensor, focused: Tensor, x: Tensor) -> Tensor:
        if self.run is None:
            return torch.cat([gated, focused], 1).index_select(1, self.get_buffer("places"))
        runs = torch.cat([half.reshape(-1, self.run, *x.shape[2:]) for half in (gated, focused)], 1)
        return runs.view_as(x) if self.open else runs.reshape(-1, *x.shape[1:])


class ShuffleGpu(nn.Module):
    """Shuffle with one expression for every channel."""

    def __init__(self, reference: Shuffle, shape: MapShape) -> None:
        super().__init__()
        channels, part = _natural(reference), _part(reference)
        by_place = (channels % (2 * part) >= part).reshape(1, -1, 1, 1)
        scale, shift = (_repeated(value, channels) for value in _affine(reference))
        zero = torch.zeros_like(scale)
        self.eps = reference.gn.eps
        self.register_buffer("of_mean", torch.where(by_place, zero, _repeated(reference.cweight, channels)))
        self.register_buffer("of_deviation", torch.where(by_place, scale, zero))
        self.register_buffer("shift", torch.where(by_place, shift, _repeated(reference.cbias, channels)))
        self.register_buffer("order", _order(reference))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        centred = x - mean
        variance = (centred * centred).mean((2, 3), keepdim=True)
        slope = self.get_buffer("of_deviation") * torch.rsqrt(variance + self.eps)
        offset = self.get_buffer("of_mean") * mean + self.get_buffer("shift")
        gated = x * torch.sigmoid(centred * slope + offset)
        return gated.index_select(1, self.get_buffer("order"))


def _part(reference: Shuffle) -> int:
    """Channels of a group that are gated in the same way."""
    return reference.channels // (2 * reference.groups)


def _order(reference: Shuffle) -> Tensor:
    """The source channel of each output channel."""
    return _natural(reference).reshape(2, -1).T.reshape(-1)


def _natural(reference: Shuffle) -> Tensor:
    return torch.arange(reference.channels, device=reference.cweight.device)


def _affine(reference: Shuffle) -> tuple[Tensor, Tensor]:
    """Scale and shift of a normalised channel, gn's affine map and the gate's in one."""
    weight = reference.sweight.detach().reshape(-1)
    bias = reference.sbias.detach().reshape(-1)
    return weight * reference.gn.weight.detach(), weight * reference.gn.bias.detach() + bias


def _repeated(values: Tensor, channels: Tensor) -> Tensor:
    """The group's values for each of these channels, `1 c 1 1`."""
    flat = values.detach().reshape(-1)
    return flat[channels % len(flat)].reshape(1, -1, 1, 1)


Shuffle.forms = {"cpu": ShuffleCpu, "gpu": ShuffleGpu}
