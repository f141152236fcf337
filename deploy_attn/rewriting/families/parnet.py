"""ParNet blocks under the names of the official code; copies of the catalogue's source are in `pasted`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.rewriting.families.loaded import holds_only, part_at
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape
    from deploy_attn.modules.parnet_forms import RepParts

_LAYERS = ("rbr_dense", "rbr_1x1", "rbr_identity", "se")
_ACTIVATIONS = ("nonlinearity", "act", "activation")


def recognise(module: nn.Module) -> Iterator[Match]:
    """RepVGG branches, a gate of one layer, and for groups a shuffle, which only some copies have."""
    if not {"rbr_dense", "rbr_1x1", "se"} <= module._modules.keys() or not holds_only(module, *_LAYERS):
        return
    parts = _parts(module)
    if parts is None:
        return
    third = "no third branch" if parts.identity is None else "a BatchNorm as third branch"
    for shuffles in (True, False) if parts.shuffles else (False,):
        facts = third, f"activation {type(parts.activation).__name__}", "shuffles its groups" if shuffles else ""
        evidence = seen(module, (), *filter(None, facts))
        yield Match("parnet", evidence, functools.partial(_form, parts._replace(shuffles=shuffles)))


def _form(parts: RepParts, shape: MapShape, engine: str) -> nn.Module:
    """It serves every size and family."""
    from deploy_attn.modules.parnet_forms import rep_form

    return rep_form(parts)


def _parts(module: nn.Module) -> RepParts | None:
    """None where a layer is missing or of another kind."""
    from torch import nn

    from deploy_attn.modules.own_layers import block_of, own_activation
    from deploy_attn.modules.parnet_forms import RepParts

    centre = part_at(module, "rbr_1x1")
    averages = isinstance(centre, nn.Sequential) and len(centre) == 2 and isinstance(centre[0], nn.AvgPool2d)
    dense, gate = block_of(part_at(module, "rbr_dense")), block_of(part_at(module, "se"))
    middle = block_of(centre[1] if isinstance(centre, nn.Sequential) and averages else centre)
    identity = part_at(module, "rbr_identity")
    activation = next((module._modules[name] for name in _ACTIVATIONS if module._modules.get(name)), None)
    missing = middle is None and not isinstance(centre, nn.Identity)
    if dense is None or gate is None or missing or activation is None:
        return None
    blocks = [block for block in (dense, middle, gate) if block is not None]
    convolutions = all(isinstance(block.layer, nn.Conv2d) for block in blocks)
    plain = all(block.activation is None for block in blocks[:-1]) and gate.norm is None
    if not convolutions or not plain or not (identity is None or isinstance(identity, nn.BatchNorm2d)):
        return None
    grouped = isinstance(dense.layer, nn.Conv2d) and dense.layer.groups > 1
    return RepParts(dense, middle, averages, gate, identity, own_activation(activation), grouped)
