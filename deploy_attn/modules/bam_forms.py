"""Bottleneck attention, the export form.

BAM: Bottleneck Attention Module, arXiv 1807.06514, section 3, equations (2) to
(5). The paper adds the logits of the channels and those of the places under one
sigmoid; the authors' code multiplies them.

Exact steps: norms are folded, the channel branch stays `b c 1 1`, and
x + x gate is x (gate + 1), so nothing is expanded to the size of the map before
the sigmoid needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from deploy_attn.modules.base import pointwise
from deploy_attn.modules.cbam import Weights
from deploy_attn.modules.channel_gate import Elementwise


class Bottlenecks(NamedTuple):
    """The layers of both branches in order, and the functions.

    Attributes:
        channels: from the channels to as many, over the mean of the map.
        places: from the channels to one plane of the map's size, the norms folded in.
        hidden: after every layer but the last of each branch.
        gate: of both branches together.
    """

    channels: Sequence[Weights]
    places: Sequence[nn.Conv2d]
    hidden: Elementwise
    gate: Elementwise


class BottleneckGate(nn.Module):
    """x * (gate(channels * places) + 1), or of their sum, `b c h w -> b c h w`."""

    def __init__(self, layers: Bottlenecks, summed: bool) -> None:
        super().__init__()
        self.channels = nn.ModuleList(pointwise(*weights) for weights in layers.channels)
        self.places = nn.ModuleList(layers.places)
        self.hidden = layers.hidden
        self.gate = layers.gate
        self.summed = summed

    def forward(self, x: Tensor) -> Tensor:
        channels = self._through(self.channels, x.mean((2, 3), keepdim=True))  # (B, C, 1, 1)
        places = self._through(self.places, x)  # (B, 1, H, W)
        logits = channels + places if self.summed else channels * places
        return x * (self.gate(logits) + 1)

    def _through(self, layers: nn.ModuleList, x: Tensor) -> Tensor:
        *inner, last = layers
        for layer in inner:
            x = self.hidden(layer(x))
        out: Tensor = last(x)
        return out
