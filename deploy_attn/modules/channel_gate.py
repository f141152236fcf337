"""What the export forms of SE, ECA and their kin share: one gate a channel, made of the pooled map."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from deploy_attn.modules.base import MapShape

Elementwise = Callable[[Tensor], Tensor]


class GateUse(NamedTuple):
    """What a gate is made of, and what becomes of it.

    Attributes:
        add_max: the descriptor is the half sum of mean and max, else the mean.
        applied: the form returns the gated map, else the gate itself.
        flat: a gate itself is `b c`, else `b c 1 1`.
        channels_last: the map is `b h w c`; its gate is applied.
    """

    add_max: bool = False
    applied: bool = True
    flat: bool = False
    channels_last: bool = False


APPLIED = GateUse()


class ChannelGate(nn.Module, abc.ABC):
    """x * gate(descriptor(x)), or the gate alone."""

    def __init__(self, shape: MapShape, use: GateUse) -> None:
        super().__init__()
        self.channels = shape.channels
        self.use = use

    @abc.abstractmethod
    def gate_of(self, descriptor: Tensor) -> Tensor:
        """`b c 1 1 -> b c 1 1`."""

    def forward(self, x: Tensor) -> Tensor:
        places = (1, 2) if self.use.channels_last else (2, 3)
        descriptor = x.mean(places, keepdim=True)
        if self.use.add_max:
            descriptor = (descriptor + x.amax(places, keepdim=True)) * 0.5
        if self.use.channels_last:
            gate = self.gate_of(descriptor.reshape(-1, self.channels, 1, 1))
            return x * gate.reshape(-1, 1, 1, self.channels)
        gate = self.gate_of(descriptor)
        if self.use.applied:
            return x * gate
        return gate.reshape(-1, self.channels) if self.use.flat else gate
