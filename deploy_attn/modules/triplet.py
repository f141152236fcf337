"""Triplet Attention.

Rotate to Attend: Convolutional Triplet Attention Module, arXiv 2010.03045,
section 3.2, equations (2) to (4).

The source stacks [max, mean] in each branch, normalises with a momentum of 0.01,
has no ReLU after the norm, and with `no_spatial` averages two branches instead
of three. No weight depends on the channels. Keys:
`{cw,hc,hw}.conv.conv.weight`, `{cw,hc,hw}.conv.bn.*`; `cw` is the gate over
channels and columns, `hc` over rows and channels, `hw` over rows and columns,
which `no_spatial` leaves out.

The export form takes six exact steps, the last three for CPUs only:

1. A branch of the source transposes the map so that the axis it pools over
   becomes axis 1, gates it, and transposes it back. Here the map stays as it
   is and is pooled over axis 2 or 3; only the small planes are turned. The
   plane of `hc` is channels by rows, so its kernel is transposed instead.
2. BatchNorm is folded into the convolution, and the convolution of
   [max, mean] is the sum of two (see cbam.py).
3. x a / 3 + x b / 3 + x c / 3 is x (a / 3 + b / 3 + c / 3): one product of the
   map. The third is taken of the planes, where it costs nothing.
4. Max and mean over the channels are taken in parts (see cbam.py).
5. The second axis of a plane becomes the channels of its convolution (see
   cbam.py): for the planes over the channels, which have many rows, this is
   where most of the time goes.
6. The sum of a column a (the gate of `hc` for one channel) and a row b (that of
   `cw`), of every pair of their elements, is the matrix product [a, 1] [1; b].
   Each of its products is with a one, so that it rounds as the sum does.
   onnxruntime adds a column to a row in many short steps.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, fold_norm
from deploy_attn.modules.cbam import PIECES, GatePieces, SpatialGate, Weights

_KERNEL_SIZE = 7
_ROWS, _COLUMNS = 2, 3  # axes of b c h w


class Triplet(ReferenceForm):
    """The mean of three copies of the map, each gated over two of its axes, `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "triplet"

    def __init__(self, channels: int | None = None, no_spatial: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.no_spatial = no_spatial
        self.cw = _AttentionGate()
        self.hc = _AttentionGate()
        if not no_spatial:
            self.hw = _AttentionGate()

    def forward(self, x: Tensor) -> Tensor:
        over_cw = self.cw(x.permute(0, 2, 1, 3).contiguous()).permute(0, 2, 1, 3).contiguous()
        over_hc = self.hc(x.permute(0, 3, 2, 1).contiguous()).permute(0, 3, 2, 1).contiguous()
        if self.no_spatial:
            halved: Tensor = 1 / 2 * (over_cw + over_hc)
            return halved
        averaged: Tensor = 1 / 3 * (self.hw(x) + over_cw + over_hc)
        return averaged


class _AttentionGate(nn.Module):
    """x times a gate over its last two axes, made of the max and the mean over axis 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = _ConvNorm()

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)], 1)
        return x * torch.sigmoid(self.conv(pooled))


class _ConvNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, _KERNEL_SIZE, padding=_KERNEL_SIZE // 2, bias=False)
        self.bn = nn.BatchNorm2d(1, eps=1e-5, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.bn(self.conv(x))
        return normed


class Branches(NamedTuple):
    """The convolutions of the branches over [max, mean], norms folded in; each weight is `1 2 k k`."""

    cw: Weights
    hc: Weights
    hw: Weights | None


class TripletGates(nn.Module):
    """Triplet without a transposed map."""

    def __init__(self, branches: Branches, shape: MapShape, pieces: GatePieces) -> None:
        super().__init__()
        self.share = 1 / 2 if branches.hw is None else 1 / 3
        self.cw = _CrossGate(branches.cw, shape, _ROWS, self.share, pieces)
        self.hc = _CrossGate(branches.hc, shape, _COLUMNS, self.share, pieces)
        self.hw: SpatialGate | None = None
        if branches.hw is not None:
            weight, bias = branches.hw
            self.hw = SpatialGate((weight.flip(1), bias), shape, pieces)  # it takes the mean first

    def forward(self, x: Tensor) -> Tensor:
        gate = self.crossed(self.cw(x), self.hc(x))
        if self.hw is not None:
            gate = gate + self.hw(x) * self.share
        return x * gate

    def crossed(self, over_cw: Tensor, over_hc: Tensor) -> Tensor:
        """The sum of `b c 1 w` and `b c h 1`, `b c h w`."""
        return over_cw + over_hc


class _CrossGate(nn.Module):
    """share * gate over the channels and one axis of the map, `b c h w -> b c 1 w` or `b c h 1`.

    Pools over the other axis.
    """

    def __init__(self, branch: Weights, shape: MapShape, pooled: int, share: float, pieces: GatePieces) -> None:
        super().__init__()
        weight, bias = branch
        length = shape.width if pooled == _ROWS else shape.height
        kernel = weight if pooled == _ROWS else weight.transpose(2, 3)
        self.pooled = pooled
        self.share = share
        self.plane = (1, shape.channels, length)
        self.gate = (shape.channels, 1, length) if pooled == _ROWS else (shape.channels, length, 1)
        self.conv = pieces.convolution(kernel, bias, (shape.channels, length))

    def forward(self, x: Tensor) -> Tensor:
        there, back = ((0, 2, 1, 3), (0, 2, 1, 3)) if self.pooled == _ROWS else ((0, 3, 1, 2), (0, 2, 3, 1))
        largest = _turned(x.amax(self.pooled, keepdim=True), there, self.plane)
        mean = _turned(x.mean(self.pooled, keepdim=True), there, self.plane)
        return _turned(torch.sigmoid(self.conv(largest, mean)) * self.share, back, self.gate)


def _turned(x: Tensor, order: tuple[int, ...], extents: tuple[int | None, ...]) -> Tensor:
    """A plane, whose one axis of extent 1 changes its place: a reshape where the extents are known."""
    known = [extent for extent in extents if extent is not None]
    return x.reshape(-1, *known) if len(known) == len(extents) else x.permute(order)


class TripletCpu(TripletGates):
    """Triplet whose gates are laid out for the lanes of a CPU."""

    def __init__(self, reference: Triplet, shape: MapShape) -> None:
        super().__init__(_branches(reference), shape, PIECES["cpu"])
        self.row = (shape.channels, 1, shape.height)

    def crossed(self, over_cw: Tensor, over_hc: Tensor) -> Tensor:
        over_hc = _turned(over_hc, (0, 1, 3, 2), self.row)
        columns = torch.cat([over_hc, over_hc * 0 + 1], 2).transpose(2, 3)  # (B, C, H, 2)
        return columns @ torch.cat([over_cw * 0 + 1, over_cw], 2)


class TripletGpu(TripletGates):
    """Triplet whose gates neither join nor transpose the planes."""

    def __init__(self, reference: Triplet, shape: MapShape) -> None:
        super().__init__(_branches(reference), shape, PIECES["gpu"])


def _branches(reference: Triplet) -> Branches:
    cw, hc = (fold_norm(gate.conv.conv, gate.conv.bn) for gate in (reference.cw, reference.hc))
    hw = None if reference.no_spatial else fold_norm(reference.hw.conv.conv, reference.hw.conv.bn)
    return Branches(cw, hc, hw)


Triplet.forms = {"cpu": TripletCpu, "gpu": TripletGpu}
