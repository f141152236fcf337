"""Self-attention over the places of a map.

Attention Is All You Need, arXiv 1706.03762, section 3.2.1, equation (1), with
the places of one map as queries, keys and values.

The source gives the formula softmax(Q K^T) V without the division by the root
of the channels, which `scale=True` adds; one head, projections without biases,
no output projection and no residual. Keys: `wq.weight`, `wk.weight`, `wv.weight`.

The export form stays in `b c n`, a token x_i being a place. Three exact steps:

1. The logit q_i . k_j = (Wq x_i) . (Wk x_j) equals (Wk^T Wq x_i) . x_j, so
   that one matrix, merged beforehand, replaces two projections. The scale is
   folded into it.
2. Weighted sums commute with a matrix: sum_j a_ij (Wv x_j) = Wv (sum_j a_ij x_j).
   Projected after the sum, the result is a map without a transposition, and
   the input serves as keys and as values.
3. On a CPU the queries go in blocks, which keeps their weights in the cache.

Both forms are matrix products throughout; TensorRT then needs no change of layout.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, tokens
from deploy_attn.modules.tokens_attention import Projection, as_map, block_sizes, in_blocks


class SelfAttention(ReferenceForm):
    """softmax(Q K^T) V over the places of a map, `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "self_attention"

    def __init__(self, channels: int, scale: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.scale = scale
        self.wq = nn.Linear(channels, channels, bias=False)
        self.wk = nn.Linear(channels, channels, bias=False)
        self.wv = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2).transpose(1, 2)  # (B, N, C)
        logits = self.wq(places) @ self.wk(places).transpose(1, 2)
        if self.scale:
            logits = logits / math.sqrt(self.channels)
        attended = logits.softmax(-1) @ self.wv(places)
        return attended.transpose(1, 2).reshape(x.shape)


class SelfAttentionGpu(nn.Module):
    """SelfAttention with the input as keys and values, all queries at once."""

    family: ClassVar[str] = "gpu"

    def __init__(self, reference: SelfAttention, shape: MapShape) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = block_sizes(shape.area, shape.area) if self.family == "cpu" else []
        merged = reference.wk.weight.detach().T @ reference.wq.weight.detach()
        self.query = Projection(merged / math.sqrt(shape.channels) if reference.scale else merged, None)
        self.value = Projection(reference.wv.weight, None)

    def forward(self, x: Tensor) -> Tensor:
        keys = tokens(x, self.shape.channels, self.shape)
        values = keys.transpose(1, 2)
        attended = in_blocks(lambda block: (block @ keys).softmax(-1) @ values, self.queries(keys, values), self.blocks)
        return as_map(self.value(attended.transpose(1, 2)), x, self.shape)

    def queries(self, keys: Tensor, values: Tensor) -> Tensor:
        """`b n c`, of the input as `b c n` and as `b n c`."""
        projected: Tensor = self.query(keys)
        return projected.transpose(1, 2)


class SelfAttentionCpu(SelfAttentionGpu):
    """SelfAttention with the input as keys and values, the queries in blocks.

    A matrix product that reads its left side transposed turns it once for each part of its columns. The logits have
    many and the queries few, so the queries are made as they are read.
    """

    family = "cpu"

    def queries(self, keys: Tensor, values: Tensor) -> Tensor:
        return values @ self.query.weight.T


SelfAttention.forms = {"cpu": SelfAttentionCpu, "gpu": SelfAttentionGpu}
