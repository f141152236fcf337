"""Global context under any name: a sum of the map under a softmax, two layers, a product or a sum or both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy_attn.rewriting.activations import Activation, gates_of
from deploy_attn.rewriting.layers import Layer, first_with, is_of_torch, layers_of, words_of
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape
    from deploy_attn.modules.global_context_forms import Bottleneck

_TYPES = frozenset({"timm.layers.global_context.GlobalContext", "mmcv.cnn.bricks.context_block.ContextBlock"})
_MOST_LAYERS = 5  # a mask, and two layers to scale by and two to add

_Pair = tuple[Layer, Layer]


@dataclass(frozen=True)
class _Reading:
    """What a module may compute: two layers for the factor, two for the summand, or one of these."""

    mask: Layer | None
    scale: _Pair | None
    shift: _Pair | None
    hidden: Activation
    gate: Activation | None

    @property
    def said(self) -> tuple[str, ...]:
        context = "the mean of the map" if self.mask is None else f"a softmax of {self.mask.path}"
        uses = [f"{use} {pair[1].path}" for use, pair in (("times", self.scale), ("plus", self.shift)) if pair]
        gate = () if self.gate is None else (self.gate.said,)
        return (f"context by {context}", ", ".join(uses), self.hidden.said, *gate)

    def build(self, shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.global_context_forms import ContextGates, ContextLayers

        mask = None if self.mask is None else self.mask.weights()[0]
        gate = self.hidden if self.gate is None else self.gate
        layers = ContextLayers(mask, self._bottleneck(self.scale), self._bottleneck(self.shift), gate.function)
        return ContextGates(layers, shape)

    def _bottleneck(self, pair: _Pair | None) -> Bottleneck | None:
        from torch import nn

        from deploy_attn.modules.global_context_forms import Bottleneck

        if pair is None:
            return None
        first, last = pair
        norm = first.norm if isinstance(first.norm, nn.LayerNorm) else None
        reduce = first if norm is None else Layer(first.path, first.module)
        return Bottleneck(reduce.weights(), norm, self.hidden.function, last.weights())


def recognise(module: nn.Module) -> Iterator[Match]:
    """A module with a layer before a softmax, or with LayerNorms of a pooled map, and one or two pairs of layers."""
    layers = () if is_of_torch(module) else layers_of(module, _MOST_LAYERS)
    mask = next((layer for layer in layers if layer.outputs == 1 and layer.inputs > 1 and layer.is_pointwise), None)
    pairs = _pairs([layer for layer in layers if layer is not mask])
    words = words_of(module) if pairs else ()
    if mask is None and not any(_has_layer_norm(first) for first, _ in pairs):
        return  # a squeeze-and-excitation, or nothing of this kind
    if first_with(words, "mean", "avg") is None if mask is None else "softmax" not in words:
        return
    evidence = seen(module, _TYPES)
    for reading in _readings(module, mask, pairs):
        yield Match("global_context", (*evidence, *reading.said), reading.build)


def _has_layer_norm(layer: Layer) -> bool:
    from torch import nn

    return isinstance(layer.norm, nn.LayerNorm)


def _pairs(layers: Sequence[Layer]) -> tuple[_Pair, ...]:
    """Layers from the channels to a few and back, twice at the most; none if there is anything else."""
    pairs = tuple(zip(layers[::2], layers[1::2]))
    fit = all(
        first.inputs == last.outputs and first.outputs == last.inputs and not _has_layer_norm(last)
        for first, last in pairs
    )
    plain = all(layer.is_pointwise for layer in layers)
    return pairs if fit and plain and 2 * len(pairs) == len(layers) and len(pairs) <= 2 else ()


def _readings(module: nn.Module, mask: Layer | None, pairs: tuple[_Pair, ...]) -> Iterator[_Reading]:
    gates, hidden = gates_of(module)
    for between in hidden:
        for scale, shift in _uses(pairs):
            for gate in gates if scale is not None else [None]:
                yield _Reading(mask, scale, shift, between, gate)


def _uses(pairs: tuple[_Pair, ...]) -> list[tuple[_Pair | None, _Pair | None]]:
    """Which pair scales and which is added; what is called an addition is tried as one first."""
    if len(pairs) == 1:
        uses: list[tuple[_Pair | None, _Pair | None]] = [(pairs[0], None), (None, pairs[0])]
    else:
        uses = [(pairs[0], pairs[1]), (pairs[1], pairs[0])]
    return sorted(uses, key=lambda use: use[1] is None or "add" not in use[1][0].path)
