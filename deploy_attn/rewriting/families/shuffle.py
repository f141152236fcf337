"""Shuffle attention under any name: four weights of half a group, and a GroupNorm of one channel a group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.rewriting.layers import is_of_torch
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape
    from deploy_attn.rewriting.match import Build

_WEIGHTS = ("cweight", "cbias", "sweight", "sbias")


def recognise(module: nn.Module) -> Iterator[Match]:
    """The published keys, or four parameters of their shapes in their order; groups follow from the map's channels."""
    from torch import nn

    own = dict(module.named_parameters(recurse=False))
    if is_of_torch(module) or len(own) != len(_WEIGHTS):
        return
    norms = [part for part in module.modules() if part is not module and part._parameters]
    if len(norms) != 1 or not isinstance(norms[0], nn.GroupNorm) or norms[0].weight is None:
        return
    norm = norms[0]
    part = norm.num_channels
    if norm.num_groups != part or any(tuple(weight.shape) != (1, part, 1, 1) for weight in own.values()):
        return
    names = _WEIGHTS if own.keys() == {*_WEIGHTS} else tuple(own)
    yield Match("shuffle", seen(module), _builder(module, names, norm))


def _builder(module: nn.Module, names: tuple[str, ...], norm: nn.GroupNorm) -> Build:
    def build(shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.shuffle import Shuffle

        groups, rest = divmod(shape.channels, 2 * norm.num_channels)
        if rest:
            raise BadRequest(
                f"its weights are for {norm.num_channels} channels of each half of a group, of "
                f"which a map of {shape.channels} channels has no whole number"
            )
        reference = Shuffle(shape.channels, groups)
        reference.gn.eps = norm.eps
        weights = {key: module.get_parameter(name) for key, name in zip(_WEIGHTS, names)}
        gn = {"gn.weight": norm.weight, "gn.bias": norm.bias}
        reference.load_state_dict({key: value.detach() for key, value in {**weights, **gn}.items()}, assign=True)
        return reference.form_for(shape, engine)

    return build
