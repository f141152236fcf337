"""Squeeze-and-Excitation under any name: one or two layers on pooled channels, and a gate.

Linear or 1x1 convolutions, with biases and BatchNorms or without; one layer
only is the effective SE of arXiv 1911.06667.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.rewriting.activations import Activation, gates_of, unchanged
from deploy_attn.rewriting.layers import Layer, layers_of
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.pooled_gate import is_wrapper, pools, use_said, uses_of
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape
    from deploy_attn.modules.channel_gate import GateUse
    from deploy_attn.rewriting.match import Build

_TYPES = frozenset(
    {
        "timm.layers.squeeze_excite.SEModule",
        "timm.layers.squeeze_excite.EffectiveSEModule",
        "timm.layers.squeeze_excite.SqueezeExciteCl",
        "timm.models._efficientnet_blocks.SqueezeExcite",
        "timm.models.senet.SEModule",
        "torchvision.ops.misc.SqueezeExcitation",
        "mmpretrain.models.utils.se_layer.SELayer",
        "ultralytics.nn.modules.conv.ChannelAttention",
    }
)
_EMPTY = "its hidden layer is empty, so that its gate is the same for every map: reduce the channels less"


class _Reading(NamedTuple):
    """What a module may compute, its layers in order; two layers of equal widths may be the other way round."""

    layers: tuple[Layer, ...]
    hidden: Activation | None
    gate: Activation
    use: GateUse


def recognise(module: nn.Module) -> Iterator[Match]:
    """Any module that pools, has one or two such layers and nothing else, and a function from 0 to 1."""
    layers = _layers(module)
    if not layers or is_wrapper(module, lambda part: bool(_layers(part))):
        return
    name = "se" if len(layers) > 1 else "effective_se"
    evidence = seen(module, _TYPES)
    if not all(layer.module.weight.numel() for layer in layers):
        yield Match(name, evidence, refusal=_EMPTY)
        return
    for reading in _readings(module, layers):
        functions = (reading.gate, *([] if reading.hidden is None else [reading.hidden]))
        said = (*evidence, *use_said(reading.use), *(activation.said for activation in reversed(functions)))
        yield Match(name, said, _builder(reading), layout="b h w c" if reading.use.channels_last else "b c h w")


def _readings(module: nn.Module, layers: tuple[Layer, ...]) -> Iterator[_Reading]:
    gates, others = gates_of(module)
    uses = uses_of(module, channels_last=all(layer.module.weight.dim() == 2 for layer in layers))
    square = len(layers) > 1 and layers[0].inputs == layers[0].outputs
    for use, order, gate in itertools.product(uses, (layers, layers[::-1]) if square else (layers,), gates[::-1]):
        for hidden in _hidden((*others, *gates), gate) if len(layers) > 1 else (None,):
            yield _Reading(order, hidden, gate, use)


def _hidden(activations: tuple[Activation, ...], gate: Activation) -> list[Activation | None]:
    """What may stand between two layers: any function that is not the gate; if there is none, nothing or the gate."""
    others: list[Activation | None] = [activation for activation in activations if activation is not gate]
    return others or [None, gate]


def _builder(reading: _Reading) -> Build:
    def build(shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.base import pointwise
        from deploy_attn.modules.se import Excitation, SEExport

        first, last = _in_order(reading.layers, shape.channels)
        activation = unchanged if reading.hidden is None else reading.hidden.function
        reduce = None if first is None else pointwise(*first.weights())
        expand = pointwise(*last.weights())
        return SEExport(Excitation(reduce, activation, expand, reading.gate.function), shape, reading.use)

    return build


def _in_order(layers: tuple[Layer, ...], channels: int) -> tuple[Layer | None, Layer]:
    """The layer that takes the map's channels comes first; None and the only one, where there is one."""
    if len(layers) == 1:
        pairs: list[tuple[Layer | None, Layer]] = [(None, layers[0])]
    else:
        pairs = [(layers[0], layers[1]), (layers[1], layers[0])]
    fitting = next((pair for pair in pairs if (pair[0] or pair[1]).inputs == channels), None)
    if fitting is None:
        raise BadRequest(f"it is called with a map of {channels} channels, which none of its layers takes")
    return fitting


def _layers(module: nn.Module) -> tuple[Layer, ...]:
    """One or two layers of the pooled map, from the channels to as many, if it pools and has a gate."""
    from torch import nn

    layers = layers_of(module, 2)
    if not layers or any(isinstance(layer.norm, nn.LayerNorm) or not layer.is_pointwise for layer in layers):
        return ()
    first, last = layers[0], layers[-1]
    chained = (first.inputs, first.outputs) == (last.outputs, last.inputs)
    return layers if chained and pools(module) and gates_of(module)[0] else ()
