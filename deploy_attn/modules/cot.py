"""Contextual Transformer attention, with a softmax over the map.

Contextual Transformer Networks for Visual Recognition, arXiv 2107.12292, section 3.2.

The source is not the operator of the paper. The paper weighs the k x k
neighbours of a place with weights computed there; the source averages its k^2
logits of a channel into one, takes the softmax of each channel over all places
of the map, and multiplies the values by it place by place: nothing is
aggregated. Keys: `key_embed.{0,1}.*`, `value_embed.{0,1}.*`,
`attention_embed.{0,1,3}.*`.

The export form takes four exact steps:

1. The mean over k^2 outputs of a 1x1 convolution is the 1x1 convolution of the
   mean weights, so the last layer has k^2 times fewer outputs.
2. The bias of that layer is a constant of a whole channel, which a softmax
   over the map does not see; it drops out.
3. The three BatchNorms are folded into their convolutions.
4. The layer over [keys, x] is W_k keys + W_x x; the concatenation vanishes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, both, convolution, fold_norm, pointwise, tokens
from deploy_attn.modules.tokens_attention import as_map

_GROUPS = 4
_FACTOR = 4  # the hidden layer has 2 * channels // 4 units


class CoT(ReferenceForm):
    """keys(x) + softmax over h * w of logits([keys(x), x]) * values(x), `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "cot"

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        hidden = 2 * channels // _FACTOR
        self.key_embed = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=_GROUPS, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.value_embed = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.attention_embed = nn.Sequential(
            nn.Conv2d(2 * channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, kernel_size * kernel_size * channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        keys = self.key_embed(x)
        values = self.value_embed(x).reshape(b, c, -1)  # (B, C, HW)
        logits = self.attention_embed(torch.cat([keys, x], 1))
        logits = logits.reshape(b, c, self.kernel_size * self.kernel_size, h, w).mean(2).reshape(b, c, -1)
        context = logits.softmax(-1) * values
        return keys + context.reshape(b, c, h, w)


class CoTExport(nn.Module):
    """CoT with one logit for each channel and place, and no concatenation."""

    def __init__(self, reference: CoT, shape: MapShape) -> None:
        super().__init__()
        channels, reach = shape.channels, reference.kernel_size // 2
        self.shape = shape
        embeddings: tuple[Any, ...] = (reference.key_embed, reference.value_embed, reference.attention_embed)
        keys, values, (weight, bias) = (fold_norm(*embedding[:2]) for embedding in embeddings)
        self.keys = convolution(*keys, padding=(reach, reach), groups=_GROUPS)
        self.values = pointwise(*values)
        of_keys, of_x = weight.split(channels, 1)
        self.hidden_of_keys = pointwise(of_keys, None)
        self.hidden_of_x = pointwise(of_x, bias)
        taps = reference.get_parameter("attention_embed.3.weight").detach()
        self.logits = pointwise(taps.reshape(channels, -1, taps.shape[1]).mean(1), None)

    def forward(self, x: Tensor) -> Tensor:
        keys = torch.relu(self.keys(x))
        hidden = torch.relu(self.hidden_of_keys(keys) + self.hidden_of_x(x))
        logits = tokens(self.logits(hidden), self.shape.channels, self.shape)  # (B, C, HW)
        weights = logits.softmax(-1)
        values = self.values(x)
        return keys + as_map(weights, x, self.shape) * values


CoT.forms = both(CoTExport)
