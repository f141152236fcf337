"""Multi-head self-attention with an absolute position table, as in BoTNet blocks.

Bottleneck Transformers for Visual Recognition, arXiv 2101.11605, section 3 and
figure 4.

The source is the common PyTorch version, which differs from the paper: the
logits are not divided by the root of a head's channels; the position term is
transposed, so that place i's position meets place j's query (r_i . q_j, the
paper has q_i . r_j); its table is absolute and not relative. Its two extents
are named the wrong way round: `width` is the one that runs along the map's
height. A map of fewer places takes the first of the flattened table, whatever
its width; one of more places is refused. Trained weights depend on all of
this, and it is kept. Keys: `query.*`, `key.*`, `value.*`, and with `pos_emb`
`rel_h_weight`, `rel_w_weight`.

The export form stays in `b heads d n`. Five exact steps:

1. The key's bias adds q_i . b_k to the logits, the same for every j, and the
   softmax over j does not see it. In r_i . q_j neither is the query's bias seen.
2. The position table is summed, flattened and cut to the map beforehand.
3. q_i . k_j + r_i . q_j = [q_i, r_i] . [k_j, q_j]: one product of twice the
   depth instead of two and a sum of n x n matrices. A concatenation does not
   broadcast, so the table gets the batch from a zero multiple of the queries.
4. The weights multiply the values from the left, so the n x n matrix is never
   transposed: only the result is, which is smaller.
5. On a CPU the queries go in blocks, which keeps their weights in the cache.

On a GPU the projections are matrix products, which saves TensorRT three changes
of layout. On a CPU, where they are a little slower, and where the size is open
they stay convolutions, whose maps are split into heads by a static reshape.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, pointwise, tokens
from deploy_attn.modules.own_layers import Layer
from deploy_attn.modules.tokens_attention import Projection, as_map, block_sizes, in_blocks


class MHSA(ReferenceForm):
    """Attention between all places of a map, a head at a time, `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "mhsa"

    def __init__(self, channels: int, heads: int = 4, pos_emb: bool = False, width: int = 14, height: int = 14) -> None:
        super().__init__()
        self.channels = channels
        self.heads = heads
        self.pos_emb = pos_emb
        self.width = width
        self.height = height
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        if pos_emb:
            self.rel_h_weight = nn.Parameter(torch.randn(1, heads, channels // heads, 1, height))
            self.rel_w_weight = nn.Parameter(torch.randn(1, heads, channels // heads, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        self._check_map(x)
        by_head = (x.shape[0], self.heads, self.channels // self.heads, -1)
        query = self.query(x).view(by_head)
        key = self.key(x).view(by_head)
        value = self.value(x).view(by_head)
        logits = torch.matmul(query.permute(0, 1, 3, 2), key)  # (B, heads, N, N)
        if self.pos_emb:
            position = torch.matmul(self.position_table().permute(0, 1, 3, 2), query)
            logits = logits + position[:, :, : logits.shape[2]]
        attended = torch.matmul(value, logits.softmax(-1).permute(0, 1, 3, 2))
        return attended.view(x.shape)

    def position_table(self) -> Tensor:
        """A vector for every place of the table, `1 heads d places`."""
        return (self.rel_h_weight + self.rel_w_weight).flatten(3)


class HeadParts(NamedTuple):
    """The projections of attention by heads.

    Attributes:
        query: `heads*depth c`.
        key: as many; it needs no bias.
        value: `heads*width c`.
        scale: of the logits. It goes to the queries, and not into their projection: where the graph shows it, the FP16
            plan knows the logits to be small, and attention stays in FP16.
    """

    heads: int
    query: Layer
    key: Layer
    value: Layer
    scale: float = 1.0


class AttentionByHeads(nn.Module):
    """softmax over the places of query . key, times the values, a head at a time.

    For the family `gpu` matrix products, all queries at once; for `cpu` convolutions, the queries in blocks.
    """

    def __init__(self, parts: HeadParts, shape: MapShape, family: str) -> None:
        super().__init__()
        self.shape = shape
        self.heads = parts.heads
        self.scale = parts.scale
        self.depths = [len(weight) // parts.heads for weight, _ in (parts.query, parts.key, parts.value)]
        self.blocks = block_sizes(shape.area, shape.area, parts.heads) if family == "cpu" else []
        self.multiplies = family == "gpu" and shape.area is not None
        self.outputs = shape._replace(channels=len(parts.value[0]))
        project = Projection if self.multiplies else pointwise
        self.query = project(*parts.query)
        self.key = project(*parts.key)
        self.value = project(*parts.value)

    def forward(self, x: Tensor) -> Tensor:
        return self.map_of(self.mixed(*self.projected(x)), x)

    def projected(self, x: Tensor) -> list[Tensor]:
        """Query, key and value, `b heads d n` each."""
        places = tokens(x, self.shape.channels, self.shape) if self.multiplies else x
        projections = (self.query, self.key, self.value)
        return [self._by_head(project(places), depth) for project, depth in zip(projections, self.depths)]

    def mixed(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Laid out as the value is."""
        query, key = self.positioned(query, key)
        if self.scale != 1:
            query = query * self.scale
        values = value.transpose(2, 3)
        mixed = in_blocks(lambda block: (block @ key).softmax(-1) @ values, query.transpose(2, 3), self.blocks)
        return mixed.transpose(2, 3)

    def map_of(self, value: Tensor, x: Tensor) -> Tensor:
        """Values by head as a map, of the height and width of x."""
        return as_map(value, x, self.outputs)

    def positioned(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """`b heads d n` each, with what is known of the positions below it."""
        return query, key

    def _by_head(self, x: Tensor, depth: int) -> Tensor:
        if self.shape.area is None:
            return x.reshape(x.shape[0], self.heads, depth, -1)
        return x.reshape(-1, self.heads, depth, self.shape.area)


class MHSAGpu(AttentionByHeads):
    """MHSA as matrix products, all queries at once."""

    family: ClassVar[str] = "gpu"

    def __init__(self, reference: MHSA, shape: MapShape) -> None:
        query = reference.query.weight, None if reference.pos_emb else reference.query.bias
        value = reference.value.weight, reference.value.bias
        super().__init__(HeadParts(reference.heads, query, (reference.key.weight, None), value), shape, self.family)
        self.position = _Position(reference, shape) if reference.pos_emb else None

    def positioned(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        if self.position is None:
            return query, key
        return self.position(query), torch.cat([key, query], 2)


class _Position(nn.Module):
    """Queries without their bias -> queries with it, and the position table below, `b heads d n -> b heads 2d n`."""

    def __init__(self, reference: MHSA, shape: MapShape) -> None:
        super().__init__()
        bias = reference.get_parameter("query.bias").detach()
        self.register_buffer("bias", bias.reshape(1, reference.heads, -1, 1).clone())
        self.register_buffer("table", reference.position_table().detach()[..., : shape.area].clone())

    def forward(self, query: Tensor) -> Tensor:
        table = query * 0 + self.get_buffer("table")
        return torch.cat([query + self.get_buffer("bias"), table], 2)


class MHSACpu(MHSAGpu):
    """MHSA with convolutions, the queries in blocks."""

    family = "cpu"


MHSA.forms = {"cpu": MHSACpu, "gpu": MHSAGpu}
