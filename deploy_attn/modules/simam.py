"""SimAM, attention without parameters.

SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural
Networks, ICML 2021 (PMLR 139), no arXiv version, equations (5) and (6).

The source divides the sum of squared deviations by h * w - 1, the paper by
h * w; so a map of 1x1 is 0 / 0 there, and is refused here. It takes a number of
channels and does not use it. There are no state_dict keys.

The export form takes the mean of the squares and puts h * w / (h * w - 1) into
the factors beside it. The two are equal, but a sum over a large map leaves
FP16's range: it is infinite then, its quotient zero, and the gate
sigmoid(0.5) everywhere, finite and wrong. On a CPU the deviation, its mean
square v and the division are one InstanceNormalization: with n = h * w, the energy less 0.5 is
the square of d / (2 sqrt(v n / (n - 1) + lambda)), and that is d / sqrt(v + eps)
times sqrt((n - 1) / n) / 2, where eps = lambda (n - 1) / n. It needs n beforehand;
where the size is open, and on a GPU, where it costs two kernels more, the form
of means is used.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.modules.base import MapShape, ReferenceForm, area_of


class SimAM(ReferenceForm):
    """x * sigmoid(d^2 / (4 (var(x) + lambda)) + 0.5), d = x - mean(x), `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "simam"

    def __init__(self, channels: int | None = None, e_lambda: float = 1e-4) -> None:
        super().__init__()
        self.channels = channels
        self.e_lambda = e_lambda
        self.activation = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        self._check_map(x)
        others = x.shape[2] * x.shape[3] - 1
        squares = (x - x.mean((2, 3), keepdim=True)).pow(2)
        variance = squares.sum((2, 3), keepdim=True) / others
        energy = squares / (4 * (variance + self.e_lambda)) + 0.5
        gated: Tensor = x * self.activation(energy)
        return gated


class SimAMMeans(nn.Module):
    """SimAM with means of squares, for any engine and any size."""

    def __init__(self, reference: SimAM, shape: MapShape) -> None:
        super().__init__()
        self.e_lambda = reference.e_lambda
        self.area = shape.area

    def forward(self, x: Tensor) -> Tensor:
        area = area_of(x) if self.area is None else self.area
        deviation = x - x.mean((2, 3), keepdim=True)
        squares = deviation * deviation
        spread = squares.mean((2, 3), keepdim=True) * (4 * area / (area - 1)) + 4 * self.e_lambda
        return x * torch.sigmoid(squares / spread + 0.5)


class SimAMNormalised(nn.Module):
    """SimAM as the square of an InstanceNormalization, for CPUs and one size."""

    def __init__(self, reference: SimAM, channels: int, area: int) -> None:
        super().__init__()
        unbiased = (area - 1) / area
        self.channels = channels
        self.scale = 0.5 * unbiased**0.5
        self.eps = reference.e_lambda * unbiased

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = x.new_full((self.channels,), self.scale), x.new_zeros(self.channels)
        normed = functional.instance_norm(x, weight=scale, bias=shift, eps=self.eps)
        return x * torch.sigmoid(normed * normed + 0.5)


def _for_cpu(reference: SimAM, shape: MapShape) -> nn.Module:
    if shape.area is None:
        return SimAMMeans(reference, shape)
    return SimAMNormalised(reference, shape.channels, shape.area)


SimAM.forms = {"cpu": _for_cpu, "gpu": SimAMMeans}
