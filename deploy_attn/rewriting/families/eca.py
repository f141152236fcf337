"""Efficient Channel Attention under any name: a convolution along the channels of the pooled map, and a gate.

With or without a bias, with zeros beyond the first and the last channel or
around a circle, and timm's two convolutions with a function between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from deploy_attn.rewriting.activations import Activation, gates_of, unchanged
from deploy_attn.rewriting.evidence import keys_are
from deploy_attn.rewriting.layers import Layer, layers_of
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.pooled_gate import is_wrapper, pools, use_said, uses_of
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape
    from deploy_attn.modules.channel_gate import GateUse
    from deploy_attn.rewriting.match import Build

_TYPES = frozenset({"timm.layers.eca.EcaModule", "timm.layers.eca.CecaModule"})
_GRID = (
    "it pools to a grid and back to the map, for which there is no export form; it stays as it is, "
    "and lint of the exported graph says whether the target takes it"
)


class _Reading(NamedTuple):
    """What a module may compute; `hidden` stands between two convolutions."""

    layers: tuple[Layer, ...]
    padding: str
    hidden: Activation | None
    gate: Activation
    use: GateUse


def recognise(module: nn.Module) -> Iterator[Match]:
    """Any module that pools, has such convolutions and nothing else, and a function from 0 to 1."""
    layers = _layers(module)
    if not layers or is_wrapper(module, lambda part: bool(_layers(part))):
        return
    evidence = seen(module, _TYPES)
    if keys_are(module, {"conv.weight": 3, "conv_local.weight": 3}):
        yield Match("mlca", evidence, refusal=_GRID)
        return
    for reading in _readings(module, layers):
        facts = (*use_said(reading.use), f"{reading.padding} beyond the ends", reading.gate.said)
        said = facts if reading.hidden is None else (*facts, reading.hidden.said)
        yield Match("eca", (*evidence, *said), _builder(reading))


def _readings(module: nn.Module, layers: tuple[Layer, ...]) -> Iterator[_Reading]:
    gates, functions = gates_of(module)
    for use, padding, gate in itertools.product(uses_of(module), _paddings(layers[-1]), gates[::-1]):
        others = [each for each in (*functions, *gates) if each is not gate] or [gate]
        for hidden in others if len(layers) > 1 else (None,):
            yield _Reading(layers, padding, hidden, gate, use)


def _paddings(layer: Layer) -> tuple[str, ...]:
    """What may stand beyond the ends: as the convolution says, or if it does not pad, what forward may do itself."""
    (extent,), mode = layer.kernel, str(layer.module.padding_mode)
    reach = extent // 2
    if layer.module.padding in {"same", (reach,)}:
        return (mode,) if reach and mode in ("zeros", "circular") else ("zeros",)
    return ("circular", "zeros")


def _builder(reading: _Reading) -> Build:
    def build(shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.eca import ECAExport, Neighbours

        inner, last = reading.layers[0], reading.layers[-1]
        reach = last.kernel[0] // 2
        around = reach if reading.padding == "circular" else 0
        layer = _over_rows(last, reach - around)
        first = None if inner is last else _over_rows(inner, 0)
        activation = unchanged if reading.hidden is None else reading.hidden.function
        return ECAExport(Neighbours(layer, reading.gate.function, around, first, activation), shape, reading.use)

    return build


def _over_rows(layer: Layer, padding: int) -> nn.Conv2d:
    from deploy_attn.modules.base import convolution

    weight, bias = layer.weights()
    return convolution(weight[:, :, :, None], bias, padding=(padding, 0))


def _layers(module: nn.Module) -> tuple[Layer, ...]:
    """One convolution from one channel to one, perhaps after one of kernel 1, if it pools and has a gate."""
    layers = layers_of(module, 2)
    if not layers or not all(_is_plain(layer) for layer in layers):
        return ()
    first, last = layers[0], layers[-1]
    chained = first.inputs == last.outputs == 1 and first.outputs == last.inputs
    return layers if chained and pools(module) and gates_of(module)[0] else ()


def _is_plain(layer: Layer) -> bool:
    from torch import nn

    conv = layer.module
    if not isinstance(conv, nn.Conv1d):
        return False
    return conv.kernel_size[0] % 2 == 1 and conv.stride == conv.dilation == (1,) and conv.groups == 1
