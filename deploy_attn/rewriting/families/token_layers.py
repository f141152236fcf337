"""The layers of self-attention by heads in a module, by their names and shapes, under the names of many sources."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy_attn.rewriting.families.loaded import numbers, tensors_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deploy_attn.modules.own_layers import Block

# The layers that make queries, keys and values: one for all, two or three.
_PROJECTIONS = (
    *(
        (name,)
        for name in ("qkv", "to_qkv", "qkv_proj", "proj_qkv", "Wqkv", "in_proj", "c_attn", "query_key_value", "to_qvk")
    ),
    *(("q", "kv"), ("to_q", "to_kv"), ("q_proj", "kv_proj"), ("qk", "v"), ("to_qk", "to_v")),
    *(("q", "k", "v"), ("to_q", "to_k", "to_v"), ("q_proj", "k_proj", "v_proj"), ("query", "key", "value")),
    *(("queries", "keys", "values"), ("q_linear", "k_linear", "v_linear"), ("fc_q", "fc_k", "fc_v")),
    *(("wq", "wk", "wv"), ("w_q", "w_k", "w_v"), ("W_q", "W_k", "W_v"), ("Wq", "Wk", "Wv")),
)
_LASTS = (
    *("proj", "to_out", "out_proj", "projection", "proj_out", "o_proj", "c_proj", "out", "fc_out", "fc_o"),
    *("wo", "w_o", "W_o", "Wo", "W_0", "dense", "fc"),
)
_NORMS = (("q_norm", "k_norm"), ("norm_q", "norm_k"), ("query_norm", "key_norm"))
_TABLES = (
    ("relative_position_bias_table", "relative_position_index"),
    ("attention_biases", "attention_bias_idxs"),
)
_TABLE_HOLDERS = ("rel_pos", "rel_pos_bias", "relative_position_bias", "pos_bias")
_OWN_BIASES = ("q_bias", "k_bias", "v_bias")
_COUNTS = ("num_heads", "heads", "n_heads", "nhead", "n_head", "num_attention_heads", "h")
_USUAL_COUNTS = (1, 8, 12, 4, 6, 3, 16, 2)
_DEPTHS = ("head_dim", "dim_head", "key_dim", "head_size", "attention_head_size")
_SCALES = ("scale", "scaling", "scale_factor", "softmax_scale", "norm_factor", "temperature")


class TokenLayers(NamedTuple):
    """What attention is made of.

    Attributes:
        projections: of queries, keys and values, and which of them each makes, as `qkv` or `q`, `kv`.
        rows: how many channels queries and keys, and values, have in all heads.
        norm: of the tokens or of what the heads return.
        head_norms: of the queries and keys of a head.
        activation: before the last projection.
        table: what holds a table of positions: the module itself, a child, or None.
        names: of everything direct that is understood.
    """

    projections: tuple[tuple[Block, str], ...]
    rows: tuple[int, int]
    norm: nn.Module | None
    head_norms: tuple[nn.Module | None, nn.Module | None]
    activation: nn.Module | None
    last: Block | None
    table: nn.Module | None
    names: frozenset[str]

    @property
    def of_maps(self) -> bool:
        """The projections are convolutions."""
        return bool(self.projections[0][0].layer.weight.dim() == 4)

    @property
    def plain(self) -> bool:
        """There are neither norms nor activations."""
        return all(part is None for part in (self.norm, *self.head_norms, self.activation))


def token_layers(module: nn.Module) -> TokenLayers | None:
    """The layers, where there are projections of fitting shapes; None for anything else.

    Convolutions without a last one are not taken.
    """
    names = next((names for names in _PROJECTIONS if all(_child(module, name) is not None for name in names)), None)
    if names is None or not tensors_of(module):
        return None
    blocks = [_layer(_child(module, name)) for name in names]
    last_name = next((name for name in _LASTS if _child(module, name) is not None), "")
    last_child = _child(module, last_name)
    activation, last = _last(last_child)
    plain = tuple(block for block in blocks if block is not None)
    ranks = {block.layer.weight.dim() for block in (*plain, *([last] if last else []))}
    if len(plain) != len(blocks) or len(ranks) != 1:
        return None
    if last is None and (ranks == {4} or (last_child is not None and last_child.state_dict())):
        return None
    projections = tuple(zip(plain, _letters(names)))
    rows = _rows(projections, last)
    if rows is None:
        return None
    norm_names = next((pair for pair in _NORMS if pair[0] in module._modules), ("", ""))
    table, table_names = _table(module)
    known = {*names, last_name, *norm_names, *table_names, "norm", *_biases(module), *_constants(module)}
    norms = _effective(_child(module, norm_names[0])), _effective(_child(module, norm_names[1]))
    norm = _effective(_child(module, "norm"))
    return TokenLayers(projections, rows, norm, norms, activation, last, table, frozenset(known))


def head_counts(module: nn.Module, layers: TokenLayers) -> list[int]:
    """What its attributes say, or else usual numbers."""
    depths = [depth for depth in numbers(module, *_DEPTHS) if depth >= 1]
    said = [*numbers(module, *_COUNTS), *(layers.rows[0] // depth for depth in depths)]
    counts = dict.fromkeys(int(count) for count in said if count >= 1)
    fitting = [count for count in counts if _divides(count, layers.rows)]
    return fitting or [count for count in _USUAL_COUNTS if _divides(count, layers.rows)]


def own_scales(module: nn.Module) -> list[float]:
    """What its attributes say: a number above one divides."""
    found = [*numbers(module, *_SCALES), *map(_single, map({**vars(module), **module._buffers}.get, _SCALES))]
    return [1 / scale if scale > 1 else scale for scale in found if scale > 0]


def _single(value: object) -> float:
    """The number of a tensor that holds one, else zero."""
    import torch

    if not isinstance(value, torch.Tensor) or value.numel() != 1 or value.is_complex() or value.is_meta:
        return 0.0
    return float(value) if math.isfinite(value) else 0.0


def own_biases(module: nn.Module) -> tuple[Tensor, Tensor, Tensor] | None:
    """Biases of queries, keys and values that the module holds itself beside a layer without one."""
    import torch

    if not _biases(module):
        return None
    query, value = module.get_parameter("q_bias").detach(), module.get_parameter("v_bias").detach()
    key = module._parameters.get("k_bias", module._buffers.get("k_bias"))
    return query, torch.zeros_like(query) if key is None else key.detach(), value


def table_of(holder: Any) -> Tensor:
    """What is added to the logits, `heads n n`: gathered from a table, or what a method says that it is."""
    for table, index in _TABLES:
        if table in holder._parameters and index in holder._buffers:
            return _gathered(holder, table, index)
    found: Tensor = holder.get_bias().detach()
    return found.reshape(found.shape[-3:])


def _gathered(holder: Any, table: str, index: str) -> Tensor:
    """A table lies `distances heads`, or `heads distances`; LeViT's keeps what it gathered once."""
    import torch

    if table == "attention_biases":
        if callable(getattr(holder, "get_attention_biases", None)):
            kept: Tensor = holder.get_attention_biases(torch.device("cpu"))
            return kept.detach()
        gathered: Tensor = holder._parameters[table].detach()[:, holder._buffers[index]]
        return gathered
    flat = holder._buffers[index].flatten()
    places = round(len(flat) ** 0.5)
    by_pair: Tensor = holder._parameters[table].detach()[flat]
    return by_pair.reshape(places, places, -1).permute(2, 0, 1)


def _child(module: nn.Module, name: str) -> nn.Module | None:
    return dict(module._modules.items()).get(name)  # a scripted module's own has no `get`


def _effective(module: nn.Module | None) -> nn.Module | None:
    from torch import nn

    return None if isinstance(module, (nn.Identity, nn.Dropout)) else module


def _layer(module: nn.Module | None) -> Block | None:
    """A matrix or 1x1 convolution, perhaps with its BatchNorm."""
    from torch import nn

    from deploy_attn.modules.own_layers import block_of

    block = block_of(module)
    if block is None or block.activation is not None:
        return None
    layer = block.layer
    plain = isinstance(layer, nn.Linear) or {*layer.kernel_size, *layer.stride, layer.groups} == {1}
    return block if plain else None


def _last(module: nn.Module | None) -> tuple[nn.Module | None, Block | None]:
    """The last projection, and an activation before it; it may be a Sequential."""
    from torch import nn

    from deploy_attn.modules.own_layers import own_activation

    if isinstance(module, nn.Sequential) and len(module) > 1 and not module[0].state_dict():
        return own_activation(module[0]), _layer(module[1:])
    return None, _layer(module)


def _letters(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) == 2:
        return ("qk", "v") if names[0].endswith("qk") else ("q", "kv")
    return ("qkv",) if len(names) == 1 else ("q", "k", "v")


def _rows(projections: tuple[tuple[Block, str], ...], last: Block | None) -> tuple[int, int] | None:
    """How many rows queries and keys, and values, have; None where the layers do not fit together."""
    made = {letters: len(block.layer.weight) for block, letters in projections}
    widths = {block.layer.weight.shape[1] for block, _ in projections}
    total = sum(made.values())
    value = made.get("v", total // 3 if last is None else last.layer.weight.shape[1])
    query = made.get("q", (total - value) // 2)
    fits = 2 * query + value == total and min(query, value) > 0 and made.get("k", query) == query
    wanted = value if last is None else last.layer.weight.shape[1]
    return (query, value) if fits and len(widths) == 1 and wanted == value else None


def _divides(count: int, rows: tuple[int, int]) -> bool:
    return rows[0] % count == rows[1] % count == 0


def _table(module: nn.Module) -> tuple[nn.Module | None, tuple[str, ...]]:
    """What holds a table of positions, and the names by which the module knows it."""
    for names in _TABLES:
        if names[0] in module._parameters and names[1] in module._buffers:
            return module, names
    for name in _TABLE_HOLDERS:
        child = _child(module, name)
        if child is not None:
            gathered = any(table in child._parameters and index in child._buffers for table, index in _TABLES)
            return (child, (name,)) if gathered or callable(getattr(child, "get_bias", None)) else (None, ())
    return None, ()


def _biases(module: nn.Module) -> tuple[str, ...]:
    held = all(module._parameters.get(name) is not None for name in ("q_bias", "v_bias"))
    return _OWN_BIASES if held else ()


def _constants(module: nn.Module) -> list[str]:
    """Buffers of one number, which is the scale."""
    return [name for name in _SCALES if name in module._buffers]
