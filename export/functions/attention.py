"""Attention by matrix products and a softmax, which every opset has."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy_attn.export.functions.rule import Aim, NoForm, sizes_of

if TYPE_CHECKING:
    from torch import Tensor

_EXPORTED = 14  # from this opset on the exporter writes it in as many products


def scaled_dot_product_attention(
    aim: Aim, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **settings: Any
) -> Tensor:
    """softmax(scale * q k^T + mask) v; queries are `... l d`, keys `... s d`, values `... s e`."""
    if settings.get("dropout_p"):
        raise NoForm("it drops at random also in inference; pass dropout_p=0.0 unless self.training")
    if settings.get("enable_gqa"):
        raise NoForm("its keys stand for several heads each; repeat_interleave them in the network")
    if settings.get("is_causal"):
        attn_mask = _causal(aim, query, key)
    scale = settings.get("scale")
    weights = _weights(query * (sizes_of(query)[-1] ** -0.5 if scale is None else scale), key, attn_mask)
    return weights @ value


def _weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    import torch

    scores = query @ key.transpose(-2, -1)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(mask.logical_not(), -math.inf)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1)


def _causal(aim: Aim, query: Tensor, key: Tensor) -> Tensor:
    """True where a query may look: at keys up to its own place."""
    import torch

    if aim.open_size:
        raise NoForm("a causal mask of an open size is not known; export for one size")
    rows, columns = sizes_of(query)[-2], sizes_of(key)[-2]
    mask = [[column <= row for column in range(columns)] for row in range(rows)]
    return torch.tensor(mask, device=query.device)


class _Heads(NamedTuple):
    """How many, and of how many channels."""

    number: int
    channels: int


def multi_head_attention(aim: Aim, query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Any:
    """`F.multi_head_attention_forward`: `l b e` (or `l e`) in, the same and the weights `b l s` out."""
    from torch.nn import functional

    if aim.opset >= _EXPORTED:
        return None
    _refuse_extras(settings)
    batched = query.dim() == 3
    maps = [x.transpose(0, 1) if batched else x.unsqueeze(0) for x in (query, key, value)]
    if query is key is value:
        maps = [maps[0]] * 3
    heads = _Heads(settings["num_heads"], sizes_of(query)[-1] // settings["num_heads"])
    q, k, v = (_by_head(aim, x, heads) for x in _projected(maps, settings))
    weights = _weights(q * heads.channels**-0.5, k, _mask(aim, query, key, settings))
    mixed = (weights @ v).transpose(1, 2).flatten(2) if aim.open_size else _joined(weights @ v, heads)
    output = functional.linear(mixed, settings["out_proj_weight"], settings["out_proj_bias"])
    output = output.transpose(0, 1) if batched else output.squeeze(0)
    if not settings.get("need_weights", True):
        return output, None
    weights = weights.mean(1) if settings.get("average_attn_weights", True) else weights
    return output, weights if batched else weights.squeeze(0)


def _refuse_extras(settings: dict[str, Any]) -> None:
    extras = ("bias_k", "bias_v", "static_k", "static_v")
    found = [name for name in extras if settings.get(name) is not None]
    found += ["add_zero_attn"] if settings.get("add_zero_attn") else []
    if found:
        raise NoForm(f"attention with {' and '.join(found)} has no exact form here; build it without")
    if settings.get("training", True) and settings.get("dropout_p"):
        raise NoForm("it drops at random; put the network in eval mode")


def _projected(maps: list[Tensor], settings: dict[str, Any]) -> list[Tensor]:
    """Queries, keys and values, `b l e` each; one product where all three come from one map."""
    from torch.nn import functional

    bias = settings["in_proj_bias"]
    if settings.get("use_separate_proj_weight"):
        weights = [settings[f"{name}_proj_weight"] for name in "qkv"]
    elif maps[0] is maps[1] is maps[2]:
        together = functional.linear(maps[0], settings["in_proj_weight"], bias)
        return list(together.split(sizes_of(together)[-1] // 3, -1))
    else:
        weights = settings["in_proj_weight"].chunk(3)
    biases = (None, None, None) if bias is None else bias.chunk(3)
    return [functional.linear(x, weight, own) for x, weight, own in zip(maps, weights, biases)]


def _by_head(aim: Aim, x: Tensor, heads: _Heads) -> Tensor:
    """`b l e` as `b heads l channels`."""
    extents = (x.shape[0], -1) if aim.open_size else (-1, sizes_of(x)[1])
    return x.reshape(*extents, *heads).transpose(1, 2)


def _joined(x: Tensor, heads: _Heads) -> Tensor:
    """`b heads l channels` as `b l e`."""
    return x.transpose(1, 2).reshape(-1, sizes_of(x)[2], heads.number * heads.channels)


def _mask(aim: Aim, query: Tensor, key: Tensor, settings: dict[str, Any]) -> Tensor | None:
    """What is added to the scores `b heads l s`, or None; masks of bool are True where a query may not look."""
    mask, padding = settings.get("attn_mask"), settings.get("key_padding_mask")
    if settings.get("is_causal") and padding is None and not settings.get("need_weights", True):
        return _added(_causal(aim, query.transpose(0, -2), key.transpose(0, -2)).logical_not(), query)
    if mask is not None and mask.dim() == 3:
        mask = mask.unflatten(0, (-1, settings["num_heads"]))
    if padding is not None:
        padding = padding.unsqueeze(0) if padding.dim() == 1 else padding
        padding = _added(padding, query).unsqueeze(1).unsqueeze(1)
    if mask is None:
        return padding
    return _added(mask, query) if padding is None else _added(mask, query) + padding


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask of bool as -inf where it is True."""
    import torch

    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
