"""Self-attention between tokens by heads, as in Vision Transformers, and between the places of a map with a table.

Attention Is All You Need, arXiv 1706.03762, section 3.2; An Image is Worth
16x16 Words, arXiv 2010.11929, appendix A. A learned table, read for each pair of
places, may be added to the logits, as in Swin Transformer, arXiv 2103.14030,
equation (4); it is the same at every call and is read beforehand.

The steps are exact:

1. Queries, keys and values are three products whose rows are laid out
   beforehand, however the source interleaves them: nothing is sliced.
2. The bias of the key adds the same to every logit of a query and drops out,
   unless the keys are normed.
3. The scale goes to the queries, right before their product with the keys, where
   onnxruntime merges the two. It is not merged into the projection: where the
   graph shows it, the FP16 plan knows the logits to be small, and attention stays
   in FP16.
4. On a CPU the queries go in blocks where their weights would leave the cache;
   with a table they do not, which is then as large as the weights of a head.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.modules.base import MapShape, linear, pointwise
from deploy_attn.modules.mhsa import AttentionByHeads, HeadParts
from deploy_attn.modules.own_layers import Layer
from deploy_attn.modules.tokens_attention import block_sizes, in_blocks


class TokenParts(NamedTuple):
    """Attention by heads, and what stands around it; None for what a source has not.

    Attributes:
        norm: of the tokens, before the projections.
        query_norm: of the queries of a head, `b heads n d`.
        key_norm: of its keys.
        bias: what is added to the logits, `heads n n`.
        after: of what the heads return, `b n c`.
        project: the last projection.
    """

    heads: HeadParts
    norm: nn.Module | None = None
    query_norm: nn.Module | None = None
    key_norm: nn.Module | None = None
    bias: Tensor | None = None
    after: nn.Module | None = None
    project: Layer | None = None

    @property
    def outputs(self) -> int:
        """How many channels come out."""
        return len((self.heads.value if self.project is None else self.project)[0])


class TokenForm(nn.Module):
    """Attention between tokens, `b n c -> b n c`.

    Args:
        places: n, or None where it is open.

    Raises:
        BadRequest: there is a table, and it is for another number of tokens.
    """

    def __init__(self, parts: TokenParts, places: int | None, family: str) -> None:
        super().__init__()
        heads = parts.heads
        self.heads, self.scale, self.places = heads.heads, heads.scale, places
        self.depths = [len(weight) // heads.heads for weight, _ in (heads.query, heads.key, heads.value)]
        self.blocks = block_sizes(places, places, heads.heads) if family == "cpu" else []
        self.query, self.key, self.value = (linear(*layer) for layer in (heads.query, heads.key, heads.value))
        self.norm, self.query_norm, self.key_norm = parts.norm, parts.query_norm, parts.key_norm
        self.after = parts.after
        self.project = None if parts.project is None else linear(*parts.project)
        self.register_buffer("bias", _table(parts.bias, places))

    def forward(self, x: Tensor) -> Tensor:
        x = _through(self.norm, x)
        query, key, value = (
            self._by_head(project(x), depth) for project, depth in zip((self.query, self.key, self.value), self.depths)
        )
        query = _through(self.query_norm, query.transpose(1, 2))
        key = _through(self.key_norm, key.transpose(1, 2)).transpose(2, 3)
        mixed = _mixed(self, query, key, value.transpose(1, 2))
        return _through(self.project, _through(self.after, self._joined(mixed)))

    def _by_head(self, x: Tensor, depth: int) -> Tensor:
        """`b n heads d`"""
        if self.places is None:
            return x.reshape(x.shape[0], -1, self.heads, depth)
        return x.reshape(-1, self.places, self.heads, depth)

    def _joined(self, mixed: Tensor) -> Tensor:
        joined = mixed.transpose(1, 2)
        if self.places is None:
            return joined.flatten(2)
        return joined.reshape(-1, self.places, self.heads * self.depths[2])


class RegroupedForm(nn.Module):
    """A form of tokens for maps `b h w c`: all places of a map, or of one of its rows, are the tokens."""

    def __init__(self, parts: TokenParts, shape: MapShape, family: str, by_row: bool) -> None:
        super().__init__()
        self.shape = shape
        self.outputs = parts.outputs
        self.by_row = by_row
        self.tokens = TokenForm(parts, shape.width if by_row else shape.area, family)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.shape.height, self.shape.width
        if height is None or width is None:
            tokens = x.flatten(0, 1) if self.by_row else x.flatten(1, 2)
            return self.tokens(tokens).reshape(*x.shape[:3], self.outputs)
        places = width if self.by_row else height * width
        return self.tokens(x.reshape(-1, places, self.shape.channels)).reshape(-1, height, width, self.outputs)


class TableForm(AttentionByHeads):
    """Attention between the places of a map, with a table or without, projected, `b c h w -> b c h w`.

    It has no norms.

    Raises:
        BadRequest: there is a table, and it is for another number of places.
    """

    def __init__(self, parts: TokenParts, shape: MapShape, family: str) -> None:
        super().__init__(parts.heads, shape, family)
        self.register_buffer("bias", _table(parts.bias, shape.area))
        self.project = None if parts.project is None else pointwise(*parts.project)

    def forward(self, x: Tensor) -> Tensor:
        return _through(self.project, super().forward(x))

    def mixed(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _mixed(self, query.transpose(2, 3), key, value.transpose(2, 3)).transpose(2, 3)


def _mixed(form: TokenForm | TableForm, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Values weighted, `b heads n d`; queries and values as these, keys `b heads d n`."""
    bias = form.get_buffer("bias")

    def attended(block: Tensor) -> Tensor:
        logits = (block if form.scale == 1 else block * form.scale) @ key
        return (logits if bias is None else logits + bias).softmax(-1) @ value

    return in_blocks(attended, query, [] if bias is not None else form.blocks)


def _through(layer: nn.Module | None, x: Tensor) -> Tensor:
    result: Tensor = x if layer is None else layer(x)
    return result


def _table(bias: Tensor | None, places: int | None) -> Tensor | None:
    """What is added to the logits, for so many places, with an axis for the batch."""
    if bias is None:
        return None
    if bias.shape[1] != places:
        found = "an open number" if places is None else places
        raise BadRequest(f"Its table of positions is for {bias.shape[1]} places only, got {found}.")
    return bias.detach()[None].clone()
