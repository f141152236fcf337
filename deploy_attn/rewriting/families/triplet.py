"""Triplet attention under any name: two or three gates of one convolution over a maximum and a mean.

The gates hold equal weights in shape, so which of them turns the map which way
is a matter of trying.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.rewriting.layers import Layer, first_with, is_of_torch, layers_of, words_of
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape
    from deploy_attn.rewriting.match import Build

_ROLES = ("cw", "hc", "hw")


def recognise(module: nn.Module) -> Iterator[Match]:
    """A module of two or three convolutions from two planes to one, which names a maximum, a mean and a turn."""
    layers = () if is_of_torch(module) else layers_of(module, len(_ROLES))
    if len(layers) < 2 or any((layer.outputs, layer.inputs) != (1, 2) or len(layer.kernel) != 2 for layer in layers):
        return
    words = words_of(module)
    if None in (first_with(words, "max"), first_with(words, "mean", "avg"), first_with(words, "permute", "transpose")):
        return
    evidence = seen(module)
    for max_first, order in itertools.product((True, False), itertools.permutations(layers)):
        said = ", ".join(f"{role} {layer.path}" for role, layer in zip(_ROLES, order))
        planes = "[max, mean]" if max_first else "[mean, max]"
        yield Match("triplet", (*evidence, f"branches {said}", f"planes {planes}"), _builder(order, max_first))


def _builder(order: tuple[Layer, ...], max_first: bool) -> Build:
    def build(shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.cbam import PIECES
        from deploy_attn.modules.triplet import Branches, TripletGates

        folded = [layer.same_size_weights() for layer in order]
        cw, hc, *hw = folded if max_first else [(weight.flip(1), bias) for weight, bias in folded]
        return TripletGates(Branches(cw, hc, hw[0] if hw else None), shape, PIECES[engine])

    return build
