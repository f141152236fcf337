"""Split attention: the convolution of a ResNeSt block and the gate between its groups of outputs.

ResNeSt: Split-Attention Networks, arXiv 2004.08955, section 3.1.

One convolution makes `radix` maps, which are mixed as the branches of selective
kernels are. With a radix of 1 its only map is gated by a sigmoid. The gate's two
layers are grouped by cardinality, and the last one's outputs stand in the order
cardinality, radix, channel, the maps in radix, cardinality, channel. On one
vector a group saves nothing: both layers are made dense, which puts the outputs
in the order of the maps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import pointwise
from deploy_attn.modules.own_layers import Block, Layer
from deploy_attn.modules.sk import Selection, SelectiveForm


class SplitParts(NamedTuple):
    """The layers of split attention: `maps` makes the maps, `reduce` and `logits` the gate; `radix` counts the maps."""

    maps: Block
    reduce: Block
    logits: Block
    radix: int


def split_attn_form(parts: SplitParts) -> nn.Module:
    """The export form for these layers."""
    return SplitAttnForm(parts) if parts.radix > 1 else _GatedForm(parts)


class SplitAttnForm(SelectiveForm):
    """Maps of one convolution, mixed by a softmax over them."""

    def __init__(self, parts: SplitParts) -> None:
        selection = Selection(_reduce(parts), parts.reduce.activation, _logits(parts), parts.radix)
        super().__init__([parts.maps.convolution()], selection)
        self.activate = parts.maps.activation or nn.Identity()

    def maps(self, x: Tensor) -> list[Tensor]:
        conv = self.convs[0]
        return list(self.activate(conv(x)).split([self.channels] * self.branches, 1))


class _GatedForm(nn.Module):
    """A convolution whose map is gated by a sigmoid."""

    def __init__(self, parts: SplitParts) -> None:
        super().__init__()
        self.conv = parts.maps.convolution()
        self.activate = parts.maps.activation or nn.Identity()
        self.reduce = pointwise(*_reduce(parts))
        self.activation = parts.reduce.activation or nn.Identity()
        self.expand = pointwise(*_logits(parts))

    def forward(self, x: Tensor) -> Tensor:
        own = self.activate(self.conv(x))
        hidden = self.activation(self.reduce(own.mean((2, 3), keepdim=True)))
        return own * torch.sigmoid(self.expand(hidden))


def _reduce(parts: SplitParts) -> Layer:
    weight, bias = parts.reduce.folded()
    return _dense(weight, _groups(parts.reduce)), bias


def _logits(parts: SplitParts) -> Layer:
    """In the order of the maps."""
    weight, bias = parts.logits.folded()
    groups = _groups(parts.logits)
    order = torch.arange(len(weight)).reshape(groups, parts.radix, -1).transpose(0, 1).flatten()
    return _dense(weight, groups)[order], None if bias is None else bias[order]


def _groups(block: Block) -> int:
    return block.layer.groups if isinstance(block.layer, nn.Conv2d) else 1


def _dense(weight: Tensor, groups: int) -> Tensor:
    """The matrix `out in` of a grouped 1x1 convolution."""
    return torch.block_diag(*weight.flatten(1).chunk(groups))
