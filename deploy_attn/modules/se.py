"""Squeeze-and-Excitation.

Squeeze-and-Excitation Networks, arXiv 1709.01507, section 3. With
`gate="hard_sigmoid"` it is the block of MobileNetV3, arXiv 1905.02244, section 5.1.

The source is the common `nn.Linear` version without biases (keys `fc.0.weight`,
`fc.2.weight`). It runs with fewer channels than `reduction` too, where its
hidden layer is empty and the gate is one half everywhere; that is refused here.

The export form keeps the map in `b c 1 1`: a Linear on a vector equals a 1x1
convolution on a 1x1 map, so the view and the expand vanish.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, both, pointwise
from deploy_attn.modules.channel_gate import APPLIED, ChannelGate, Elementwise, GateUse


class SE(ReferenceForm):
    """x * gate(W2 relu(W1 mean(x))), `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "se"

    def __init__(self, channels: int, reduction: int = 16, gate: str = "sigmoid") -> None:
        super().__init__()
        self.channels = channels
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Hardsigmoid() if gate == "hard_sigmoid" else nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3))  # (B, C)
        return x * self.fc(squeezed)[:, :, None, None]


class Excitation(NamedTuple):
    """The layers between descriptor and gate; without `reduce`, `expand` takes the descriptor itself."""

    reduce: nn.Conv2d | None
    activation: Elementwise
    expand: nn.Conv2d
    gate: Elementwise


class SEExport(ChannelGate):
    """SE with 1x1 convolutions on the pooled map."""

    def __init__(self, layers: Excitation, shape: MapShape, use: GateUse = APPLIED) -> None:
        super().__init__(shape, use)
        self.reduce = layers.reduce
        self.activation = layers.activation
        self.expand = layers.expand
        self.gate = layers.gate

    def gate_of(self, descriptor: Tensor) -> Tensor:
        hidden = descriptor if self.reduce is None else self.activation(self.reduce(descriptor))
        return self.gate(self.expand(hidden))


def se_form(reference: SE, shape: MapShape) -> SEExport:
    reduce = pointwise(reference.get_parameter("fc.0.weight"), None)
    expand = pointwise(reference.get_parameter("fc.2.weight"), None)
    return SEExport(Excitation(reduce, torch.relu, expand, reference.get_submodule("fc.3")), shape)


SE.forms = both(se_form)
