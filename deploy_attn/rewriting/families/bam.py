"""Bottleneck attention under any name: layers over the mean of the map, convolutions over the map, one gate of both."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.rewriting.activations import Activation, gates_of
from deploy_attn.rewriting.layers import Layer, first_with, is_of_torch, layers_of, words_of
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape

_MOST_LAYERS = 16


@dataclass(frozen=True)
class _Reading:
    """What a module may compute; `square` if it pools by its height alone, so that only square maps are meant."""

    channels: tuple[Layer, ...]
    places: tuple[Layer, ...]
    hidden: Activation
    gate: Activation
    summed: bool
    square: bool

    @property
    def said(self) -> tuple[str, ...]:
        logits = "the sum of both branches" if self.summed else "the product of both branches"
        maps = ("square maps only",) if self.square else ()
        return (self.hidden.said, f"{self.gate.said} of {logits}", *maps)

    def build(self, shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.bam_forms import BottleneckGate, Bottlenecks

        if self.square and (shape.height is None or shape.height != shape.width):
            raise BadRequest("it pools windows as wide as the map is high, which is the mean of square maps only")
        channels = [layer.weights() for layer in self.channels]
        places = [layer.block().convolution() for layer in self.places]
        layers = Bottlenecks(channels, places, self.hidden.function, self.gate.function)
        return BottleneckGate(layers, self.summed)


def recognise(module: nn.Module) -> Iterator[Match]:
    """A module that takes a mean, with a chain of layers back to the channels and a chain to one plane."""
    layers = () if is_of_torch(module) else layers_of(module, _MOST_LAYERS)
    branches = _branches(layers)
    words = words_of(module) if branches else ()
    if branches is None or first_with(words, "mean", "avg") is None:
        return
    gates, hidden = gates_of(module)
    evidence = seen(module)
    pools = (True, False) if "avg_pool2d" in words else (False, True)
    for between, gate in itertools.product(hidden, gates):
        for summed, square in itertools.product((False, True), pools):
            reading = _Reading(*branches, between, gate, summed, square)
            yield Match("bam", (*evidence, *reading.said), reading.build)


def _branches(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], tuple[Layer, ...]] | None:
    """The layers of the channels and those of the places, whichever were registered first."""
    for cut in range(2, len(layers) - 1):
        for channels, places in ((layers[:cut], layers[cut:]), (layers[cut:], layers[:cut])):
            to_themselves = _is_chain(channels) and channels[-1].outputs == channels[0].inputs
            plain = all(layer.is_pointwise for layer in channels)
            to_one = _is_chain(places) and places[-1].outputs == 1 and places[0].inputs == channels[0].inputs
            if to_themselves and plain and to_one and all(len(layer.kernel) == 2 for layer in places):
                return tuple(channels), tuple(places)
    return None


def _is_chain(layers: Sequence[Layer]) -> bool:
    return all(first.outputs == second.inputs for first, second in itertools.pairwise(layers))
