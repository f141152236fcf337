"""Pieces of the export forms that attend between the places of a map, seen as tokens `b c n`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape

# Measured: below the first a matrix product loses its efficiency, beyond the second weights leave a CPU's cache.
_FEWEST_QUERIES = 128
_MOST_BLOCK_BYTES = 4 * 2**20


class Projection(nn.Module):
    """A 1x1 convolution as one matrix product, `b in n -> b out n`.

    TensorRT lays a map out anew for a convolution, and back for the products
    that follow; it does neither where all of them are products.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().reshape(weight.shape[:2]).clone(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach()[:, None].clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        product = self.weight @ x
        return product if self.bias is None else product + self.bias


def block_sizes(queries: int | None, attended: int | None, heads: int = 1) -> list[int]:
    """How many queries each block takes, about equal; no blocks where the number of places is open."""
    if queries is None or attended is None:
        return []
    most = max(_FEWEST_QUERIES, _MOST_BLOCK_BYTES // (4 * heads * attended))
    return [len(block) for block in torch.arange(queries).tensor_split(-(-queries // most))]


def in_blocks(attend: Callable[[Tensor], Tensor], queries: Tensor, sizes: list[int]) -> Tensor:
    """What `attend` makes of the queries `... n d`, so many at a time.

    A row of weights depends on its own query only, so the blocks are exact. On
    a CPU the matrix of weights then never leaves the cache; on a GPU each block
    costs more launches.
    """
    if len(sizes) < 2:
        return attend(queries)
    return torch.cat([attend(block) for block in queries.split(sizes, -2)], -2)


def as_map(y: Tensor, x: Tensor, shape: MapShape) -> Tensor:
    """Tokens, by head or not, as a map of this shape; where the size is open, as one like the input x."""
    if shape.height is None or shape.width is None:
        return y.reshape_as(x)
    return y.reshape(-1, shape.channels, shape.height, shape.width)
