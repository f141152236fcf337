"""Self-attention by heads between the places of a map."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from deploy_attn.rewriting.families.loaded import holds_only, loaded, numbers, part_at, tensors_of
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deploy_attn.modules.base import MapShape
    from deploy_attn.modules.own_layers import Block, Layer

_KNOWN = ("timm.layers.bottleneck_attn.BottleneckAttn",)
_COUNTS = ("heads", "num_heads", "n_heads", "nhead")
_USUAL_COUNTS = (4, 8, 1, 2, 16)
_TABLES = MappingProxyType({"rel_h_weight": "rel_h", "rel_w_weight": "rel_w"})
_SAME_NAMES: Mapping[str, str] = MappingProxyType({})


def recognise(module: nn.Module) -> Iterator[Match]:
    """By the names and shapes of the projections, and of what is known of positions."""
    held = module._modules.keys()
    if held >= {"query", "key", "value"}:
        yield from _absolute(module)
    if held >= {"qkv", "pos_embed"}:
        yield from _relative(module)
    if held >= {"qkv", "proj", "pe"} or held >= {"qk", "v", "proj", "pe"}:
        yield from _with_convolution(module)


def _absolute(module: nn.Module) -> Iterator[Match]:
    """Three 1x1 convolutions, perhaps a table of positions, which is taken flat, whatever its extents are called."""
    state = tensors_of(module)
    channels = next(iter(state["query.weight"].shape), 0) if "query.weight" in state else 0
    names = _TABLES if "rel_h" in state else _SAME_NAMES
    rows, columns = (state.get(names.get(name, name)) for name in _TABLES)
    options: dict[str, object] = {"channels": channels}
    counts = _head_counts(module, channels)
    if rows is not None and columns is not None and rows.dim() == columns.dim() == 5:
        options.update(pos_emb=True, height=rows.shape[4], width=columns.shape[3])
        counts = [rows.shape[1]]
    for heads in counts:
        reference = loaded("mhsa", {**options, "heads": heads}, module, names)
        if reference is not None:
            yield from _scaled(module, reference)


def _head_counts(module: nn.Module, channels: int) -> list[int]:
    """What its attributes say, then usual numbers."""
    counts = dict.fromkeys((*numbers(module, *_COUNTS), *_USUAL_COUNTS))
    return [int(count) for count in counts if count >= 1 and channels % count == 0]


def _scaled(module: nn.Module, reference: Any) -> Iterator[Match]:
    """Sources differ in the scale of the logits, and in whether it is that of the position term too."""
    depth = reference.channels // reference.heads
    for scale in dict.fromkeys((1.0, depth**-0.5, reference.channels**-0.5)):
        for of_positions in (True, False) if reference.pos_emb and scale != 1 else (True,):
            of = "logits" if of_positions else "logits but for the position term"
            said = f"{reference.heads} heads", "no scale" if scale == 1 else f"{of} times {scale:.4g}"
            build = functools.partial(_scaled_form, reference, scale, of_positions)
            yield Match("mhsa", seen(module, _KNOWN, *said), build)


def _scaled_form(reference: Any, scale: float, of_positions: bool, shape: MapShape, engine: str) -> nn.Module:
    import copy

    import torch

    if reference.pos_emb and not of_positions:
        reference = copy.deepcopy(reference)
        with torch.no_grad():
            reference.rel_h_weight.div_(scale)
            reference.rel_w_weight.div_(scale)
    form = reference.form_for(shape, engine)
    form.scale = scale
    return cast("nn.Module", form)


class _Relative(NamedTuple):
    """timm's attention with relative positions; its form is for the size of its tables."""

    module: Any
    heads: int
    depth: int
    positions_scaled: bool

    def form(self, shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.mhsa import HeadParts
        from deploy_attn.modules.mhsa_forms import RelativeForm, RelativeTables

        (weight, bias), table = _layer(self.module.qkv), self.module.pos_embed
        sizes = [self.heads * self.depth, self.heads * self.depth, len(weight) - 2 * self.heads * self.depth]
        weights = weight.split(sizes)
        biases = [None] * 3 if bias is None else bias.split(sizes)
        scale = self.depth**-0.5
        parts = HeadParts(self.heads, (weights[0], biases[0]), (weights[1], None), (weights[2], biases[2]), scale)
        of_tables = 1.0 if self.positions_scaled else 1 / scale
        tables = RelativeTables(table.height_rel * of_tables, table.width_rel * of_tables)
        return RelativeForm(parts, tables, self._pool(), shape, engine)

    def _pool(self) -> nn.Module | None:
        from torch import nn

        pool = self.module._modules.get("pool")
        return nn.AvgPool2d(pool.kernel_size, pool.stride) if isinstance(pool, nn.AvgPool2d) else None


def _relative(module: nn.Module) -> Iterator[Match]:
    state = tensors_of(module)
    tables = [state.get(f"pos_embed.{name}") for name in ("height_rel", "width_rel")]
    weight = state.get("qkv.weight")
    known = {"qkv.weight", "qkv.bias", "pos_embed.height_rel", "pos_embed.width_rel"}
    if weight is None or weight.dim() != 4 or state.keys() - known:
        return
    depths = {table.shape[1] for table in tables if table is not None and table.dim() == 2 and len(table) % 2}
    if None in tables or len(depths) != 1:
        return
    depth = depths.pop()
    own = vars(module).get("scale_pos_embed") is True
    counts = [int(count) for count in numbers(module, *_COUNTS) if count >= 1]
    for heads in counts[:1]:
        if len(weight) > 2 * heads * depth and (len(weight) - 2 * heads * depth) % heads == 0:
            for scaled in (own, not own):
                said = f"{heads} heads", f"relative positions {'scaled' if scaled else 'not scaled'} as the logits are"
                yield Match("mhsa_relative", seen(module, _KNOWN, *said), _Relative(module, heads, depth, scaled).form)


class _Convolved(NamedTuple):
    """Attention to whose values' mixture a convolution of the values is added."""

    projections: tuple[Block, ...]  # of query, key and value at once, or of query and key, and of value
    position: Block
    project: Block
    heads: int
    areas: int

    def form(self, shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.mhsa import HeadParts
        from deploy_attn.modules.mhsa_forms import ConvolvedParts, ConvPositionForm

        query, key, value = self._interleaved() if len(self.projections) == 1 else self._side_by_side()
        scale = (len(query[0]) // self.heads) ** -0.5
        parts = HeadParts(self.heads, query, (key[0], None), value, scale)
        return ConvPositionForm(ConvolvedParts(parts, self.position, self.project, self.areas), shape, engine)

    def _interleaved(self) -> list[Layer]:
        """Of each head, query, key and value."""
        width = len(self.project.layer.weight[0]) // self.heads
        weight, bias = self.projections[0].folded()
        depth = (len(weight) // self.heads - width) // 2
        by_head = weight.reshape(self.heads, -1, weight.shape[1]).split([depth, depth, width], 1)
        biases = [None] * 3 if bias is None else bias.reshape(self.heads, -1).split([depth, depth, width], 1)
        return [(part.flatten(0, 1), None if own is None else own.flatten()) for part, own in zip(by_head, biases)]

    def _side_by_side(self) -> list[Layer]:
        (weight, bias), value = self.projections[0].folded(), self.projections[1].folded()
        query, key = weight.chunk(2)
        biases = (None, None) if bias is None else bias.chunk(2)
        return [(query, biases[0]), (key, biases[1]), value]


def _with_convolution(module: nn.Module) -> Iterator[Match]:
    from torch import nn

    from deploy_attn.modules.own_layers import block_of

    names = ("qkv",) if "qkv" in module._modules else ("qk", "v")
    blocks = [block_of(part_at(module, name)) for name in (*names, "pe", "proj")]
    plain = [block for block in blocks if block is not None and block.activation is None]
    counts = [int(count) for count in numbers(module, "num_heads", "heads") if count >= 1]
    if len(plain) != len(blocks) or not counts or not holds_only(module, *names, "pe", "proj"):
        return
    if not all(isinstance(block.layer, nn.Conv2d) for block in plain):
        return
    *projections, position, project = plain
    heads, areas = counts[0], int((*numbers(module, "area"), 1)[0])
    if _fits(projections, project, heads):
        said = f"{heads} heads", "a convolution of the values as positions", *([f"{areas} areas"] if areas > 1 else [])
        yield Match(
            "mhsa_convolved",
            seen(module, _KNOWN, *said),
            _Convolved(tuple(projections), position, project, heads, areas).form,
        )


def _fits(projections: list[Block], project: Block, heads: int) -> bool:
    """Whether the outputs of the projections are those of so many heads."""
    width = project.layer.weight.shape[1]
    outputs = [len(block.layer.weight) for block in projections]
    if width % heads or outputs[0] % heads or outputs[-1] < width:
        return False
    return (outputs[0] - width) // heads % 2 == 0 if len(outputs) == 1 else outputs[0] % (2 * heads) == 0


def _layer(conv: Any) -> Layer:
    weight: Tensor = conv.weight.detach()
    return weight.flatten(1), None if conv.bias is None else conv.bias.detach()
