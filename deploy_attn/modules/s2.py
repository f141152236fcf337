"""S2-MLPv2 spatial-shift attention.

S2-MLPv2: Improved Spatial-Shift MLP Architecture for Vision, arXiv 2108.01072,
equations (7) to (11).

The source shifts by copying overlapping slices in place, whose result PyTorch
leaves undefined: one CPU thread smears the first row or column over the whole
axis, more threads break that at chunk edges, a GPU is not deterministic on large
maps, an ONNX export shifts truly, and the gradient is always that of the true shift. Nothing is written in
place here. `semantics="shift"` is the paper's equation (8), the border row
kept; `"smear"` is what one CPU thread computes, to reproduce numbers that were
measured that way. The source's split attention is fixed to 512 channels; here
it has as many as the block. A quarter is cut at channels // 4, // 2 and * 3 // 4,
so any channel count works. Keys: `mlp1.*`, `mlp2.*`, `split_attention.mlp{1,2}.weight`.

The export form stays in `b c h w`. Three exact steps (quarters q0 to q3):

1. Branch 1 shifts q0, q1 along h and q2, q3 along w; branch 2 the other way
   round. The output channels of mlp1 are permuted so that all h-shifts lie in
   one map and all w-shifts in another, both in the order q0 q2 q1 q3; the
   softmax over the branches does not mind which branch stands first, so its
   logits are permuted to match, and mlp2 takes its inputs in that order.
2. The descriptor, the sum of all three branches over h and w, is linear in x:
   the sum of a shifted map is the sum of the map plus its first row minus its
   last. Five sums of x and one matrix replace three passes over 3 c maps.
3. mlp1 of the split attention is linear too and is merged into that matrix.
"""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.modules.base import MapShape, ReferenceForm, area_of, linear, pointwise

_ROWS, _COLUMNS = 1, 2  # axes of b h w c


class S2(ReferenceForm):
    """Two shifted branches and a plain one, mixed by split attention, `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "s2"

    def __init__(self, channels: int, semantics: str = "shift") -> None:
        super().__init__()
        self.channels = channels
        self.semantics = semantics
        self.mlp1 = nn.Linear(channels, 3 * channels)
        self.split_attention = SplitAttention(channels)
        self.mlp2 = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        expanded = self.mlp1(x.permute(0, 2, 3, 1))  # (B, H, W, 3C)
        first, second, third = expanded.chunk(3, -1)
        first = self._shifted(first, (_ROWS, _COLUMNS))
        second = self._shifted(second, (_COLUMNS, _ROWS))
        mixed = self.split_attention(torch.stack([first, second, third], 1))
        projected: Tensor = self.mlp2(mixed).permute(0, 3, 1, 2)
        return projected

    def _shifted(self, x: Tensor, axes: tuple[int, int]) -> Tensor:
        """Shifts q0, q1 forwards and backwards along the first axis, q2, q3 along the second."""
        quarters = x.split(quarter_sizes(self.channels), -1)
        shifted = [
            shift(quarter, axes[index // 2], index % 2 == 0, self.semantics) for index, quarter in enumerate(quarters)
        ]
        return torch.cat(shifted, -1)


class SplitAttention(nn.Module):
    """Mixes k maps by a softmax over k, `b k h w c -> b h w c`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.mlp1 = nn.Linear(channels, channels, bias=False)
        self.mlp2 = nn.Linear(channels, 3 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        descriptor = x.sum((1, 2, 3))  # (B, C)
        logits = self.mlp2(functional.gelu(self.mlp1(descriptor)))
        weights = logits.reshape(-1, 3, 1, 1, self.channels).softmax(1)
        return (weights * x).sum(1)


def quarter_sizes(channels: int) -> list[int]:
    """Sizes of q0 to q3, cut where the source cuts."""
    cuts = [0, channels // 4, channels // 2, channels * 3 // 4, channels]
    return [end - start for start, end in itertools.pairwise(cuts)]


def shift(x: Tensor, axis: int, forwards: bool, semantics: str) -> Tensor:
    """Moves a map by one place along an axis, the border kept; nothing is written in place.

    Under `smear`, a forward shift repeats the first place over the whole axis.
    """
    first, last = _lines(x, axis, None, 1), _lines(x, axis, -1, None)
    if forwards and semantics == "smear":
        return first.expand_as(x)
    if forwards:
        return torch.cat([first, _lines(x, axis, None, -1)], axis)
    return torch.cat([_lines(x, axis, 1, None), last], axis)


def _lines(x: Tensor, axis: int, start: int | None, end: int | None) -> Tensor:
    index = [slice(None)] * axis + [slice(start, end)]
    return x[tuple(index)]


class _S2Export(nn.Module):
    """S2 in `b c h w`, shifts side by side; a family chooses how a map is shifted."""

    shift: ClassVar[type[_Shift]]

    def __init__(self, reference: S2, shape: MapShape) -> None:
        super().__init__()
        channels = reference.channels
        quarters = torch.arange(channels).split(quarter_sizes(channels))
        order = torch.cat([quarters[0], quarters[2], quarters[1], quarters[3]])
        # Branch that each channel of the h-shifted map comes from: q0, q1 the first, q2, q3 the second.
        along_h = torch.cat([torch.full_like(quarter, index // 2) for index, quarter in enumerate(quarters)])
        branches = torch.cat([along_h[order], 1 - along_h[order], torch.full_like(order, 2)])
        rows = branches * channels + order.repeat(3)
        ahead = len(quarters[0]) + len(quarters[2])
        self.sections = [ahead, channels - ahead, ahead, channels - ahead, channels]
        self.channels = channels
        self.mlp1 = pointwise(reference.mlp1.weight[rows], reference.mlp1.bias[rows])
        extents = {2: shape.height, 3: shape.width}
        self.ahead_h, self.back_h, self.ahead_w, self.back_w = (
            self.shift(axis, extents[axis], forwards, reference.semantics)
            for axis in (2, 3)
            for forwards in (True, False)
        )
        self.descriptor = (_OpenDescriptor if shape.area is None else _Descriptor)(reference, shape)
        self.logits = linear(reference.split_attention.mlp2.weight[rows], None)
        self.mlp2 = pointwise(reference.mlp2.weight[:, order], reference.mlp2.bias)

    def forward(self, x: Tensor) -> Tensor:
        ahead_h, back_h, ahead_w, back_w, third = self.mlp1(x).split(self.sections, 1)
        first = torch.cat([self.ahead_h(ahead_h), self.back_h(back_h)], 1)
        second = torch.cat([self.ahead_w(ahead_w), self.back_w(back_w)], 1)
        logits = self.logits(functional.gelu(self.descriptor(x)))
        weights = logits.reshape(-1, 3, self.channels).softmax(1).reshape(-1, 3 * self.channels, 1, 1)
        w_first, w_second, w_third = weights.split([self.channels] * 3, 1)
        mixed: Tensor = self.mlp2(first * w_first + second * w_second + third * w_third)
        return mixed


class _Shift(nn.Module):
    """One shift along h or w. An extent of None is known at run time only."""

    def __init__(self, axis: int, extent: int | None, forwards: bool, semantics: str) -> None:
        super().__init__()
        self.axis = axis
        self.extent = extent
        self.forwards = forwards
        self.semantics = semantics

    def forward(self, x: Tensor) -> Tensor:
        return shift(x, self.axis, self.forwards, self.semantics)


class _Gathered(_Shift):
    """A Gather with a constant index."""

    def __init__(self, axis: int, extent: int | None, forwards: bool, semantics: str) -> None:
        super().__init__(axis, extent, forwards, semantics)
        if extent is not None:
            places = torch.arange(extent)
            index = (places - 1).clamp(min=0) if forwards else (places + 1).clamp(max=extent - 1)
            smears = forwards and semantics == "smear"
            self.register_buffer("index", torch.zeros_like(places) if smears else index)

    def forward(self, x: Tensor) -> Tensor:
        if self.extent is None:
            return super().forward(x)
        return torch.index_select(x, self.axis, self.get_buffer("index"))


class _SplitAndJoined(_Gathered):
    """A Split and a Concat, which CPUs copy faster; a Gather where there is no middle to move."""

    def forward(self, x: Tensor) -> Tensor:
        smears = self.forwards and self.semantics == "smear"
        if self.extent is None or self.extent < 3 or smears:
            return super().forward(x)
        first, middle, last = x.split([1, self.extent - 2, 1], self.axis)
        return torch.cat([first, first, middle] if self.forwards else [middle, last, last], self.axis)


class S2Cpu(_S2Export):
    """S2 whose shifts are a Split and a Concat each."""

    shift = _SplitAndJoined


class S2Gpu(_S2Export):
    """S2 whose shifts are a Gather each."""

    shift = _Gathered


class _Descriptor(nn.Module):
    """Sum of the three branches over h and w, through mlp1 of the split attention, `b c h w -> b c`."""

    def __init__(self, reference: S2, shape: MapShape) -> None:
        super().__init__()
        height, width = shape.known_size
        head = reference.split_attention.mlp1.weight.detach()
        self.size = (height, width)
        self.merged = linear(head @ _sum_weights(reference, height, width), height * width * _place_bias(reference))

    def forward(self, x: Tensor) -> Tensor:
        merged: Tensor = self.merged(torch.cat(_sums(x, self.size), 1))
        return merged


class _OpenDescriptor(nn.Module):
    """The same, where height and width are known at run time only."""

    def __init__(self, reference: S2, shape: MapShape) -> None:
        super().__init__()
        head = reference.split_attention.mlp1.weight.detach()
        fixed = head @ _sum_weights(reference, 0, 0)
        growing = head @ _sum_weights(reference, 1, 1) - fixed  # of the first row and column: not zero under smear
        _, row, _, column, _ = growing.chunk(5, 1)
        self.smears = reference.semantics == "smear"
        self.merged = linear(torch.cat([fixed, row, column], 1) if self.smears else fixed, None)
        self.register_buffer("place_bias", _place_bias(reference))

    def forward(self, x: Tensor) -> Tensor:
        sums = _sums(x)
        if self.smears:
            height, width = torch._shape_as_tensor(x)[2:].to(x.dtype).split(1)
            sums += [sums[1] * height, sums[3] * width]
        merged: Tensor = self.merged(torch.cat(sums, 1)) + area_of(x) * self.get_buffer("place_bias")
        return merged


def _sums(x: Tensor, size: tuple[int, int] | None = None) -> list[Tensor]:
    """Sums over everything, the first row, the last row, the first column and the last column, `b c` each.

    TensorRT 8.0 reads an index of -1 outside the map: of an unknown size the last lines are slices, which is one
    kernel more each.
    """
    if size is None:
        return [part.sum((2, 3)) for part in (x, x[:, :, :1], x[:, :, -1:], x[..., :1], x[..., -1:])]
    height, width = size
    lines = [x.select(2, 0), x.select(2, height - 1), x.select(3, 0), x.select(3, width - 1)]
    return [x.sum((2, 3)), *(line.sum(2) for line in lines)]


def _place_bias(reference: S2) -> Tensor:
    """What the bias of mlp1 adds to the descriptor at each place."""
    bias = reference.mlp1.bias.detach().reshape(3, reference.channels).sum(0)
    return reference.split_attention.mlp1.weight.detach() @ bias


def _sum_weights(reference: S2, height: int, width: int) -> Tensor:
    """Matrix `c 5c` from the sums of x (all, first row, last row, first and last column) to the descriptor."""
    first, second, third = reference.mlp1.weight.detach().chunk(3, 0)
    forwards, backwards = [1.0, 1.0, -1.0], [1.0, -1.0, 1.0]  # times all, first line, last line
    blocks = []
    for index, rows in enumerate(torch.arange(reference.channels).split(quarter_sizes(reference.channels))):
        by_h, by_w = (first[rows], second[rows]) if index < 2 else (second[rows], first[rows])
        kept = forwards if index % 2 == 0 else backwards
        smeared = index % 2 == 0 and reference.semantics == "smear"
        line_h = [0.0, float(height), 0.0] if smeared else kept
        line_w = [0.0, float(width), 0.0] if smeared else kept
        total = line_h[0] * by_h + line_w[0] * by_w + third[rows]
        lines = [line_h[1] * by_h, line_h[2] * by_h, line_w[1] * by_w, line_w[2] * by_w]
        blocks.append(torch.cat([total, *lines], 1))
    return torch.cat(blocks, 0)


S2.forms = {"cpu": S2Cpu, "gpu": S2Gpu}
