"""CBAM under any name, whole or its two gates apart.

A channel gate has one or two layers over the mean and the maximum of every
channel, or over another descriptor; a spatial gate has one convolution over the
mean and the maximum at every place. A block puts one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.rewriting.activations import Activation, gates_of, unchanged
from deploy_attn.rewriting.layers import Layer, first_with, is_of_torch, layers_of, part_with, words_of
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen, source_of

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape
    from deploy_attn.modules.cbam import ChannelGate, SpatialGate
    from deploy_attn.modules.channel_gate import Elementwise
    from deploy_attn.rewriting.match import Build

_TYPES = frozenset(
    f"timm.layers.cbam.{name}"
    for name in ("CbamModule", "LightCbamModule", "ChannelAttn", "SpatialAttn", "LightSpatialAttn")
)
_CHANNELS, _PLACES = "channels", "places"
_MEAN_FIRST, _MAX_FIRST, _HALVES = "[mean, max]", "[max, mean]", "(mean + max) / 2"
_POOL_TYPES = MappingProxyType({"avg": "mean", "max": "max", "lp": "norm", "lse": "log-sum-exp"})
_PLAIN, _ADDED, _PLACES_FIRST = "channels first", "channels first, the input added", "places first"
_NAMES: Mapping[str, str] = MappingProxyType({_PLAIN: "cbam", _ADDED: "cbam_residual", _PLACES_FIRST: "cbam"})
_ADDING_SOURCES = ("fightingcv_attention, CBAMBlock",)
_MOST_LAYERS = 3


@dataclass(frozen=True)
class _Reading:
    """What a gate of the channels or of the places may compute: of what, through which layers and functions."""

    of: str
    layers: tuple[Layer, ...]
    descriptors: tuple[str, ...]
    hidden: Activation | None
    gate: Activation

    @property
    def said(self) -> str:
        functions = [activation.said for activation in (self.hidden, self.gate) if activation is not None]
        return f"gate of {self.of} by {', '.join(self.descriptors)} with {', '.join(functions)}"


def recognise(module: nn.Module) -> Iterator[Match]:
    """A module that takes means and maxima, and has the layers of one gate or of both, and no others."""
    layers = () if is_of_torch(module) else layers_of(module, _MOST_LAYERS)
    words = words_of(module) if layers else ()
    if first_with(words, "max") is None or first_with(words, "mean", "avg") is None or "add_maxpool" in vars(module):
        return
    channel, spatial = _parts(layers)
    evidence = seen(module, _TYPES)
    if channel and spatial:
        yield from _blocks(module, channel, spatial, evidence)
    elif spatial:
        yield from _gates(module, _spatial_readings(module, channel, spatial), evidence)
    elif len(channel) == 2:
        yield from _gates(module, _channel_readings(module, channel, None), evidence)


def _parts(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], Layer | None]:
    """The layers of the channel gate, and that of the spatial gate; neither if there are others."""
    convolutions = [layer for layer in layers if layer.outputs == 1 and layer.inputs <= 2 and len(layer.kernel) == 2]
    for spatial in sorted(convolutions, key=lambda layer: layer.kernel, reverse=True):
        others = tuple(layer for layer in layers if layer is not spatial)
        if not others or _is_chain(others):
            return others, spatial
    return (tuple(layers), None) if _is_chain(layers) else ((), None)


def _is_chain(layers: Sequence[Layer]) -> bool:
    """One or two layers of a pooled map, from the channels to as many."""
    first, last = layers[0], layers[-1]
    ends_meet = first.inputs == last.outputs and first.outputs == last.inputs > 0
    return len(layers) <= 2 and ends_meet and all(layer.is_pointwise for layer in layers)


def _blocks(
    module: nn.Module, channel: tuple[Layer, ...], spatial: Layer, evidence: tuple[str, ...]
) -> Iterator[Match]:
    channels = _channel_readings(module, channel, spatial)
    places = _spatial_readings(module, channel, spatial)
    orders = (_PLAIN, _ADDED, _PLACES_FIRST)
    if source_of(module) in _ADDING_SOURCES:
        orders = (_ADDED, _PLAIN, _PLACES_FIRST)
    for of_channels, of_places, order in itertools.product(channels, places, orders):
        said = (*evidence, of_channels.said, of_places.said, order)
        yield Match(_NAMES[order], said, _block_builder(of_channels, of_places, order))


def _block_builder(channel: _Reading, spatial: _Reading, order: str) -> Build:
    def build(shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.cbam import SpatialFirst, TwoGates
        from deploy_attn.modules.cbam_residual import TwoGatesAdded, TwoGatesAsOne

        added = TwoGatesAdded if engine == "cpu" else TwoGatesAsOne
        form = {_PLAIN: TwoGates, _ADDED: added, _PLACES_FIRST: SpatialFirst}[order]
        return form(_channel_gate(channel), _spatial_gate(spatial, shape, engine))

    return build


def _gates(module: nn.Module, readings: Sequence[_Reading], evidence: tuple[str, ...]) -> Iterator[Match]:
    """A module that is one gate: it returns the gate, or the map times it."""
    for reading, applied in itertools.product(readings, (False, True)):
        name = "cbam_spatial_gate" if reading.of == _PLACES else "cbam_channel_gate"
        returned = "returns the gated map" if applied else "returns the gate"
        yield Match(name, (*evidence, reading.said, returned), _gate_builder(reading, applied))


def _gate_builder(reading: _Reading, applied: bool) -> Build:
    def build(shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.cbam import Gated

        gate = _spatial_gate(reading, shape, engine) if reading.of == _PLACES else _channel_gate(reading)
        return Gated(gate) if applied else gate

    return build


def _channel_readings(module: nn.Module, layers: tuple[Layer, ...], spatial: Layer | None) -> tuple[_Reading, ...]:
    part = module if spatial is None else part_with(module, layers, [spatial])
    gates, hidden = _functions(module, part)
    between = hidden if len(layers) > 1 and hidden else [None]
    readings = itertools.product(_descriptor_sets(module, layers, spatial), between, gates)
    return tuple(_Reading(_CHANNELS, layers, *reading) for reading in readings)


def _descriptor_sets(
    module: nn.Module, layers: tuple[Layer, ...], spatial: Layer | None
) -> tuple[tuple[str, ...], ...]:
    if len(layers) == 1:
        return (("mean",),)
    declared = next((part.pool_types for part in module.modules() if "pool_types" in vars(part)), None)
    names: list[str] = [str(name) for name in declared] if isinstance(declared, (list, tuple)) else []
    if names and _POOL_TYPES.keys() >= set(names):
        return (tuple(_POOL_TYPES[name] for name in names),)
    both = ("mean", "max")
    return ((_HALVES,), both) if spatial is not None and spatial.inputs == 1 else (both,)


def _spatial_readings(module: nn.Module, channel: tuple[Layer, ...], spatial: Layer) -> tuple[_Reading, ...]:
    part = part_with(module, [spatial], channel) if channel else module
    gates, _ = _functions(module, part)
    hidden = [] if part is None else gates_of(part)[1]
    orders = [_MEAN_FIRST, _MAX_FIRST]
    if spatial.inputs == 1:
        orders = [_HALVES]
    elif _max_comes_first(words_of(module if part is None else part)):
        orders.reverse()
    readings = itertools.product(orders, [*hidden, None], gates)
    return tuple(_Reading(_PLACES, (spatial,), (order,), between, gate) for order, between, gate in readings)


def _max_comes_first(words: Sequence[str]) -> bool:
    largest, mean = first_with(words, "max"), first_with(words, "mean", "avg")
    return largest is not None and mean is not None and largest < mean


def _functions(module: nn.Module, part: nn.Module | None) -> tuple[list[Activation], list[Activation]]:
    """What may be the gate and what may stand before it: the part's own, or where it has none the module's."""
    gates, hidden = gates_of(module)
    own_gates, own_hidden = (gates, hidden) if part is None or part is module else gates_of(part)
    return own_gates or gates, own_hidden or hidden


def _channel_gate(reading: _Reading) -> ChannelGate:
    from deploy_attn.modules import cbam

    known: dict[str, Elementwise] = {
        "mean": cbam.mean_of_map,
        "max": cbam.largest_of_map,
        "norm": cbam.norm_of_map,
        "log-sum-exp": cbam.log_sum_exp_of_map,
        _HALVES: cbam.half_sum_of_map,
    }
    weights = [layer.weights() for layer in reading.layers]
    hidden = unchanged if reading.hidden is None else reading.hidden.function
    return cbam.ChannelGate(weights, [known[name] for name in reading.descriptors], hidden, reading.gate.function)


def _spatial_gate(reading: _Reading, shape: MapShape, engine: str) -> SpatialGate:
    from deploy_attn.modules.cbam import PIECES, InTurn, SpatialGate

    (layer,), (order,) = reading.layers, reading.descriptors
    weight, bias = layer.same_size_weights()
    if order == _MAX_FIRST:
        weight = weight.flip(1)
    elif order == _HALVES:
        weight = weight.repeat(1, 2, 1, 1) / 2
    gate = reading.gate.function
    if reading.hidden is not None:
        gate = InTurn(reading.hidden.function, gate)
    return SpatialGate((weight, bias), shape, PIECES[engine], gate)
