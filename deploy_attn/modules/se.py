"""Squeeze-and-Excitation.

Squeeze-and-Excitation Networks, arXiv 1709.01507, section 3.

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

from deploy_attn.modules.base import ReferenceForm, Shape, check_request, pointwise


class SE(ReferenceForm):
    """x * sigmoid(W2 relu(W1 mean(x))), `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "se"

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.channels = channels
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3))  # (B, C)
        return x * self.fc(squeezed)[:, :, None, None]

    def export_form(self, input_shape: Shape, engine: str = "cpu") -> nn.Module:
        check_request(self, input_shape, self.channels, engine)
        return SEExport(self)


class SEExport(nn.Module):
    """SE with 1x1 convolutions on the pooled map."""

    def __init__(self, reference: SE) -> None:
        super().__init__()
        self.reduce = pointwise(reference.get_parameter("fc.0.weight"), None)
        self.expand = pointwise(reference.get_parameter("fc.2.weight"), None)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True)
        hidden = torch.relu(self.reduce(squeezed))
        return x * torch.sigmoid(self.expand(hidden))
