"""Self-attention by heads between tokens, and between the places of a map, also with a table of positions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from deploy_attn.rewriting.families.loaded import tensors_of
from deploy_attn.rewriting.families.token_layers import (
    TokenLayers,
    head_counts,
    own_biases,
    own_scales,
    table_of,
    token_layers,
)
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deploy_attn.export.layout import Layout
    from deploy_attn.modules.base import MapShape
    from deploy_attn.modules.own_layers import Layer
    from deploy_attn.modules.token_attention_forms import TokenParts

_KNOWN = (
    "timm.layers.attention.Attention",
    "timm.layers.attention.AttentionRope",
    "timm.layers.attention2d.Attention2d",
    "timm.models.beit.Attention",
    "timm.models.efficientformer.Attention",
    "timm.models.levit.Attention",
    "timm.models.maxxvit.Attention2d",
    "timm.models.maxxvit.AttentionCl",
    "timm.models.swin_transformer.WindowAttention",
    "timm.models.tiny_vit.Attention",
    "timm.models.vision_transformer_relpos.RelPosAttention",
)
# What an attention module may hold beside its layers, for which there is no form.
_NO_FORM = frozenset(
    ("logit_scale", "cpb_mlp", "temperature", "tau", "rel_pos", "rel_pos_h", "rel_pos_w", "gate", "sr", "mask", "rope")
)
_APART, _BY_HEAD, _INTERLEAVED, _HEADS_LAST = "qkv head d", "head qkv d", "head d qkv", "d qkv head"  # of rows
_ORDERS = (_APART, _BY_HEAD, _INTERLEAVED, _HEADS_LAST)
# Layouts in which a module may be called, whether each row is by itself, and how many readings are tried in them.
_MAPS: tuple[tuple[Layout, bool, int | None], ...] = (("b c h w", False, None),)
_TOKENS: tuple[tuple[Layout, bool, int | None], ...] = (
    ("b n c", False, None),
    ("b h w c", False, 2),
    ("b h w c", True, 2),
    ("b c h w", False, 2),
)


def recognise(module: nn.Module) -> Iterator[Match]:
    """By the names and shapes of the projections.

    What they do not tell are several readings: the order of a layer's rows, the scale, the place of a norm, the layout.
    """
    layers = token_layers(module)
    if layers is None:
        return
    others = {key.split(".")[0] for key in tensors_of(module)} - layers.names
    refusal = _refusal(module, others)
    if refusal is not None:
        yield Match(_name(layers), seen(module, _KNOWN), refusal=refusal)
    elif not others:
        for layout, by_row, most in _MAPS if layers.of_maps else _TOKENS:
            if layout != "b c h w" or layers.plain:
                for option in itertools.islice(_options(module, layers), most):
                    yield _Reading(module, layers, option, layout, by_row).match()


def _refusal(module: nn.Module, others: set[str]) -> str | None:
    if vars(module).get("shift_size") is not None:
        return "there is no export form of attention that cuts its map into windows itself; it stays as it is written"
    if others and others <= _NO_FORM:
        return f"there is no export form of attention that holds {', '.join(sorted(others))}; it stays as it is written"
    return None


def _name(layers: TokenLayers) -> str:
    return "map_attention" if layers.of_maps else "token_attention"


class _Option(NamedTuple):
    """What shapes do not tell.

    Attributes:
        order: of the rows of a layer that makes more than one of queries, keys and values.
        scale: of the logits.
        share: of what the softmax returns.
        norm_first: the norm is of the tokens, and not of what the heads return.
    """

    heads: int
    order: str
    scale: float
    share: float
    norm_first: bool


def _options(module: nn.Module, layers: TokenLayers) -> Iterator[_Option]:
    """Likelier ones first. What is unusual is seldom met together: only with the likeliest count of heads."""
    orders, counts = _orders(module, layers), head_counts(module, layers)
    for heads in counts:
        of_all = layers.rows[0] ** -0.5
        usual, *others = dict.fromkeys((*own_scales(module), (layers.rows[0] // heads) ** -0.5, 1.0, of_all))
        scales = [(usual, 1.0, orders)]
        if heads == counts[0]:
            scales += [(scale, 1.0, orders[:1]) for scale in others]
            scales.append((1.0, of_all, orders))  # divided after the softmax, as a known copy of ViT does
        for norm_first in (True, False) if layers.norm is not None else (True,):
            for scale, share, possible in scales:
                for order in possible:
                    yield _Option(heads, order, scale, share, norm_first)


def _orders(module: nn.Module, layers: TokenLayers) -> tuple[str, ...]:
    if len(layers.projections) == 3:
        return (_APART,)
    orders = _ORDERS if layers.rows[0] == layers.rows[1] else (_BY_HEAD, _APART)
    own = _BY_HEAD if vars(module).get("head_first") is True else orders[0]
    return tuple(sorted(orders, key=lambda order: order != own))


class _Reading(NamedTuple):
    """A module read in one way, and its form."""

    module: nn.Module
    layers: TokenLayers
    option: _Option
    layout: Layout
    by_row: bool = False

    def match(self) -> Match:
        option = self.option
        facts = [f"{option.heads} heads", f"logits times {option.scale:.4g}"]
        facts += [f"weights times {option.share:.4g}"] if option.share != 1 else []
        facts += [f"rows in the order {option.order}"] if len(self.layers.projections) < 3 else []
        facts += ["a table of positions"] if self.layers.table is not None else []
        facts += [f"called with {self.layout}"] if self.layout in ("b n c", "b h w c") else []
        facts += ["each row by itself"] if self.by_row else []
        return Match(_name(self.layers), seen(self.module, _KNOWN, *facts), self.form, layout=self.layout)

    def form(self, shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.token_attention_forms import RegroupedForm, TableForm, TokenForm

        if self.layout == "b n c":
            return TokenForm(self._parts(), shape.area, engine)
        if self.layout == "b h w c":
            return RegroupedForm(self._parts(), shape, engine, self.by_row)
        return TableForm(self._parts(), shape, engine)

    def _parts(self) -> TokenParts:
        from deploy_attn.modules.mhsa import HeadParts
        from deploy_attn.modules.own_layers import own_activation
        from deploy_attn.modules.token_attention_forms import TokenParts

        layers, option = self.layers, self.option
        query, key, (weight, bias) = self._projections()
        value = weight * option.share, None if bias is None else bias * option.share
        query_norm, key_norm, norm = (
            None if part is None else own_activation(part) for part in (*layers.head_norms, layers.norm)
        )
        return TokenParts(
            HeadParts(option.heads, query, (key[0], None) if key_norm is None else key, value, option.scale),
            norm=norm if option.norm_first else None,
            query_norm=query_norm,
            key_norm=key_norm,
            bias=None if layers.table is None else table_of(layers.table),
            after=layers.activation if option.norm_first or norm is None else norm,
            project=None if layers.last is None else layers.last.folded(),
        )

    def _projections(self) -> list[Layer]:
        """Of queries, keys and values."""
        weights: dict[str, Tensor] = {}
        biases: dict[str, Tensor | None] = {}
        for block, letters in self.layers.projections:
            weight, bias = block.folded()
            weights.update(zip(letters, self._by_letter(weight.flatten(1), letters)))
            biases.update(zip(letters, [None] * 3 if bias is None else self._by_letter(bias, letters)))
        biases.update(zip("qkv", own_biases(self.module) or ()))
        return [(weights[letter], biases[letter]) for letter in "qkv"]

    def _by_letter(self, rows: Tensor, letters: str) -> list[Tensor]:
        """The rows of each, head by head."""
        sizes = [self.layers.rows[letter == "v"] for letter in letters]
        count, heads, order = len(letters), self.option.heads, self.option.order
        if count == 1 or order == _APART:
            return list(rows.split(sizes))
        if order == _BY_HEAD:
            by_head = rows.unflatten(0, (heads, -1)).split([size // heads for size in sizes], 1)
            return [part.flatten(0, 1) for part in by_head]
        if order == _INTERLEAVED:
            return list(rows.unflatten(0, (-1, count)).unbind(1))
        return [part.transpose(0, 1).flatten(0, 1) for part in rows.unflatten(0, (-1, count, heads)).unbind(1)]
