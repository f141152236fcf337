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

from typing import ClassVar

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, both, pointwise


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


class SEExport(nn.Module):
    """SE with 1x1 convolutions on the pooled map."""

    def __init__(self, reference: SE, shape: MapShape) -> None:
        super().__init__()
        self.reduce = pointwise(reference.get_parameter("fc.0.weight"), None)
        self.expand = pointwise(reference.get_parameter("fc.2.weight"), None)
        self.gate = reference.get_submodule("fc.3")

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True)
        hidden = torch.relu(self.reduce(squeezed))
        return x * self.gate(self.expand(hidden))


SE.forms = both(SEExport)
