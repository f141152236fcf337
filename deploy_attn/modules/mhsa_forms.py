"""Self-attention of other blocks than the catalogue's: relative positions, and a convolution of the values.

Relative positions are those of Bottleneck Transformers, arXiv 2101.11605,
figure 4. The query at (y, x) adds q . column[j - x] + q . row[i - y] to its logit of
the place (i, j). The form takes these products for all j, and all i, of the map,
`w` and `h` numbers for each query, by tables that hold the vectors in the order of
the places: no padding, and nothing is cut.

The other form is the attention of recent YOLO models: a depthwise convolution
of the values is added to what the heads return, before the last projection.
Areas are runs of places that attend to themselves only: on a CPU one after the
other, whose weights then stay in the cache, on a GPU as so many maps.

In both, the bias of the key drops out: it adds the same to every logit of a
query.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.modules.base import MapShape, pointwise
from deploy_attn.modules.mhsa import AttentionByHeads, HeadParts
from deploy_attn.modules.own_layers import Block
from deploy_attn.modules.tokens_attention import block_sizes


class RelativeTables(NamedTuple):
    """Vectors by distance, `2 * extent - 1 depth` each; what they add to the logits is scaled as the rest."""

    rows: Tensor
    columns: Tensor


class RelativeForm(AttentionByHeads):
    """Attention by heads with relative positions, for the size of its tables.

    Args:
        pool: of the result, or None.

    Raises:
        BadRequest: the map is of another size.
    """

    def __init__(
        self, parts: HeadParts, tables: RelativeTables, pool: nn.Module | None, shape: MapShape, family: str
    ) -> None:
        super().__init__(parts, shape, family)
        height, width = (len(table) // 2 + 1 for table in tables)
        if (shape.height, shape.width) != (height, width):
            raise BadRequest(
                f"Its relative positions are for maps of {height}x{width} only, "
                f"got {shape.height or 'an open height'}x{shape.width or 'an open width'}."
            )
        self.size = (height, width)
        self.pool = pool
        self.register_buffer("rows", _by_distance(tables.rows))
        self.register_buffer("columns", _by_distance(tables.columns))

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.pool is None else self.pool(y)

    def mixed(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = query * self.scale
        logits = query.transpose(2, 3) @ key + self._positions(query)
        return (logits.softmax(-1) @ value.transpose(2, 3)).transpose(2, 3)

    def _positions(self, query: Tensor) -> Tensor:
        """What each query adds to its logits, `b heads n n`."""
        height, width = self.size
        places = height * width
        queries = query.reshape(-1, self.heads, self.depths[0], height, width)
        rows = queries.permute(0, 1, 3, 4, 2) @ self.get_buffer("rows")  # (B, heads, h, w, h of the other)
        columns = queries.permute(0, 1, 4, 3, 2) @ self.get_buffer("columns")  # (B, heads, w, h, w of the other)
        added = rows.reshape(-1, places, height, 1) + columns.transpose(2, 3).reshape(-1, places, 1, width)
        return added.reshape(-1, self.heads, places, places)


def _by_distance(table: Tensor) -> Tensor:
    """`2 * extent - 1 depth` -> `extent depth extent`: of each line, the vectors of all lines."""
    line = torch.arange(len(table) // 2 + 1)
    return table.detach()[line - line[:, None] + len(line) - 1].transpose(1, 2).contiguous()


class ConvolvedParts(NamedTuple):
    """Attention by heads in so many areas, the convolution of its values, and the last projection."""

    heads: HeadParts
    position: Block
    project: Block
    areas: int


class ConvPositionForm(AttentionByHeads):
    """Attention by heads, plus a convolution of the values, projected.

    Raises:
        BadRequest: the places cannot be cut into the areas.
    """

    def __init__(self, parts: ConvolvedParts, shape: MapShape, family: str) -> None:
        super().__init__(parts.heads, shape, family)
        self.areas = parts.areas
        self.one_by_one = family == "cpu"
        if self.areas > 1:
            self.run = _run(shape, self.areas)
            self.blocks = block_sizes(self.run, self.run, self.heads) if self.one_by_one else []
        self.position = parts.position.convolution()
        self.project = pointwise(*parts.project.folded())

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.projected(x)
        mixed = self.map_of(self.mixed(query, key, value), x)
        projected: Tensor = self.project(mixed + self.position(self.map_of(value, x)))
        return projected

    def mixed(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.areas == 1:
            return super().mixed(query, key, value)
        if self.one_by_one:
            runs = zip(*(part.split(self.run, 3) for part in (query, key, value)))
            return torch.cat([super(ConvPositionForm, self).mixed(*run) for run in runs], 3)
        maps = [self._as_maps(part, depth) for part, depth in zip((query, key, value), self.depths)]
        apart = super().mixed(*maps).reshape(-1, self.areas, self.heads, self.depths[2], self.run)
        return apart.permute(0, 2, 3, 1, 4).reshape(-1, self.heads, self.depths[2], self.areas * self.run)

    def _as_maps(self, x: Tensor, depth: int) -> Tensor:
        apart = x.reshape(-1, self.heads, depth, self.areas, self.run).permute(0, 3, 1, 2, 4)
        return apart.reshape(-1, self.heads, depth, self.run)


def _run(shape: MapShape, areas: int) -> int:
    """How many places an area has."""
    if shape.area is None or shape.area % areas:
        places = "an open number of places" if shape.area is None else f"{shape.area} places"
        raise BadRequest(f"It cuts a map into {areas} areas of as many places each, which {places} are not.")
    return shape.area // areas
