"""Split attention of ResNeSt blocks: timm's, mmpretrain's and the authors' own share their names."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.rewriting.families.loaded import holds_only
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape
    from deploy_attn.modules.split_attn_forms import SplitParts

_KNOWN = ("timm.layers.split_attn.SplitAttn",)
_LAYERS = ("conv", "bn0", "fc1", "bn1", "fc2")
_ACTIVATIONS = (("act0", "act1"), ("relu", "relu"))


def recognise(module: nn.Module) -> Iterator[Match]:
    """One convolution for all maps, and a gate of two layers with an output for each of its channels."""
    if not {"conv", "fc1", "fc2"} <= module._modules.keys() or not holds_only(module, *_LAYERS):
        return
    parts = _parts(module)
    if parts is None:
        return
    facts = f"radix {parts.radix}", f"activation {type(parts.maps.activation).__name__}"
    yield Match("split_attn", seen(module, _KNOWN, *facts), functools.partial(_form, parts))


def _form(parts: SplitParts, shape: MapShape, engine: str) -> nn.Module:
    """It serves every size and family."""
    from deploy_attn.modules.split_attn_forms import split_attn_form

    return split_attn_form(parts)


def _parts(module: nn.Module) -> SplitParts | None:
    """None where a layer is missing, or the shapes do not fit."""
    from torch import nn

    from deploy_attn.modules.own_layers import block_of
    from deploy_attn.modules.split_attn_forms import SplitParts

    held = module._modules
    after = next((names for names in _ACTIVATIONS if held.keys() >= {*names}), (None, None))
    rows = (("conv", "bn0", after[0]), ("fc1", "bn1", after[1]), ("fc2",))
    parts = [[held.get(name) for name in row if name is not None] for row in rows]
    blocks = [block_of(nn.Sequential(*[part for part in row if part is not None])) for row in parts]
    maps, reduce, logits = blocks
    if maps is None or reduce is None or logits is None:
        return None
    if not all(isinstance(block.layer, nn.Conv2d) for block in (maps, reduce, logits)):
        return None
    made, gated = len(maps.layer.weight), len(logits.layer.weight)
    if made != gated or made % reduce.inputs or logits.norm is not None or logits.activation is not None:
        return None
    return SplitParts(maps, reduce, logits, made // reduce.inputs)
