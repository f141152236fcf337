"""Gated Channel Transformation.

Gated Channel Transformation for Visual Recognition, arXiv 1909.11519, section 3.

The source adds epsilon to the mean of the squared embeddings, where the paper
adds it to their sum. It has a second mode, `l1`, in which norms are sums of
absolute values, and of the values themselves with `after_relu`; in mode `l2`
that option changes nothing. `alpha` starts at one, `gamma` and `beta` at zero, so
that an untrained module is the identity. Keys: `alpha`, `gamma`, `beta`.

The export form computes the same quotient of means. Three exact steps:

1. Sums over the map become means, n = h * w: numerator and denominator are both
   divided by n (in mode l1) or by its root, and each epsilon by n. The sum of
   squares of a large map leaves FP16's range, its mean does not.
2. The root of a square is not taken: with q = mean(x^2) + epsilon / n, the norm
   of the embedding over the channels is the root of one weighted sum of q, with
   the weights alpha^2 / c and the bias epsilon / n, so the quotient has one root
   for both. In mode l1, alike, with |alpha| / c.
3. alpha * gamma is one factor, and 1 + tanh(z) = 2 sigmoid(2 z), which does not
   cancel where z is far below zero.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, area_of, both, linear


class GCT(ReferenceForm):
    """x * (1 + tanh(gamma * normalised(alpha * norm(x)) + beta)), `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "gct"

    def __init__(self, channels: int, epsilon: float = 1e-5, mode: str = "l2", after_relu: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.epsilon = epsilon
        self.mode = mode
        self.after_relu = after_relu
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "l1":
            magnitudes = x if self.after_relu else x.abs()
            embedding = magnitudes.sum((2, 3), keepdim=True) * self.alpha
            norm = self.gamma / (embedding.abs().mean(1, keepdim=True) + self.epsilon)
        else:
            embedding = (x.pow(2).sum((2, 3), keepdim=True) + self.epsilon).pow(0.5) * self.alpha
            norm = self.gamma / (embedding.pow(2).mean(1, keepdim=True) + self.epsilon).pow(0.5)
        return x * (1.0 + torch.tanh(embedding * norm + self.beta))


class GCTExport(nn.Module):
    """GCT with means, one quotient and a sigmoid."""

    def __init__(self, reference: GCT, shape: MapShape) -> None:
        super().__init__()
        self.channels = shape.channels
        self.epsilon, self.mode, self.after_relu = reference.epsilon, reference.mode, reference.after_relu
        self.area = shape.area
        alpha, gamma, beta = (w.detach().reshape(1, -1) for w in (reference.alpha, reference.gamma, reference.beta))
        weights = (alpha.abs() if self.mode == "l1" else alpha * alpha) / shape.channels
        bias = None if shape.area is None else weights.new_full((1,), reference.epsilon / shape.area)
        self.total = linear(weights, bias)  # over the channels
        self.register_buffer("scale", 2 * alpha * gamma)
        self.register_buffer("shift", 2 * beta)

    def forward(self, x: Tensor) -> Tensor:
        share = self.epsilon / (area_of(x) if self.area is None else self.area)
        ratio = self._of_sums(x, share) if self.mode == "l1" else self._of_squares(x, share)
        gate = 2 * torch.sigmoid(ratio * self.get_buffer("scale") + self.get_buffer("shift"))
        return x * gate.reshape(-1, self.channels, 1, 1)

    def _of_squares(self, x: Tensor, share: Tensor | float) -> Tensor:
        square = (x * x).mean((2, 3)) + share  # (B, C)
        return torch.sqrt(square / self._total(square, share))

    def _of_sums(self, x: Tensor, share: Tensor | float) -> Tensor:
        if not self.after_relu:
            magnitude = x.abs().mean((2, 3))
            return magnitude / self._total(magnitude, share)
        mean = x.mean((2, 3))
        return mean / self._total(mean.abs(), share)

    def _total(self, norms: Tensor, share: Tensor | float) -> Tensor:
        total: Tensor = self.total(norms)
        return total + share if self.area is None else total


GCT.forms = both(GCTExport)
