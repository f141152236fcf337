"""Coordinate attention under any name: one layer for rows and columns, one for each after it, and gates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy_attn.rewriting.activations import Activation, gates_of
from deploy_attn.rewriting.layers import Layer, first_with, is_of_torch, layers_of, words_of
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape

_TYPES = frozenset({"timm.layers.coord_attn.CoordAttn", "timm.layers.coord_attn.SimpleCoordAttn"})
_LAYERS = 3


@dataclass(frozen=True)
class _Reading:
    """What a module may compute; its layers are the shared one, that of the rows and that of the columns."""

    layers: tuple[Layer, Layer, Layer]
    hidden: Activation
    gate: Activation
    one_gate: bool
    added: bool

    @property
    def said(self) -> tuple[str, ...]:
        _, rows, columns = self.layers
        gates = "one gate of the sum of row and column" if self.one_gate else "a gate of each row and each column"
        kept = ("the input added",) if self.added else ()
        return (f"rows {rows.path}, columns {columns.path}", self.hidden.said, self.gate.said, gates, *kept)

    def build(self, shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.coordinate_forms import Combination, CoordinateGates, Coordinates

        reduce, rows, columns = (layer.weights() for layer in self.layers)
        layers = Coordinates(reduce, rows, columns, self.hidden.function, self.gate.function)
        return CoordinateGates(layers, Combination(self.one_gate, self.added), engine)


def recognise(module: nn.Module) -> Iterator[Match]:
    """A module that takes means, with a layer from the channels to fewer, and two from there back."""
    layers = () if is_of_torch(module) else layers_of(module, _LAYERS)
    if len(layers) != _LAYERS or not _is_fork(layers) or first_with(words_of(module), "mean", "avg") is None:
        return
    evidence = seen(module, _TYPES)
    for reading in _readings(module, layers):
        yield Match("coordinate", (*evidence, *reading.said), reading.build)


def _is_fork(layers: tuple[Layer, ...]) -> bool:
    first, *others = layers
    there_and_back = (first.outputs, first.inputs)
    return all(layer.is_pointwise for layer in layers) and all(
        (layer.inputs, layer.outputs) == there_and_back for layer in others
    )


def _readings(module: nn.Module, layers: tuple[Layer, ...]) -> Iterator[_Reading]:
    first, second, third = layers
    gates, hidden = gates_of(module)
    keeps = vars(module).get("has_skip")
    adding = (keeps,) if isinstance(keeps, bool) else (False, True)
    linear = first.kernel == ()
    orders = ((first, second, third), (first, third, second))
    for one_gate, added, order in itertools.product((linear, not linear), adding, orders):
        for between, gate in itertools.product(hidden, gates):
            yield _Reading(order, between, gate, one_gate, added)
