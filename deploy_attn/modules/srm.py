"""Style-based Recalibration Module.

SRM: A Style-based Recalibration Module for Convolutional Neural Networks,
arXiv 1903.10829, sections 3.1 and 3.2.

The source takes the deviation as sqrt(variance + 1e-5) with the variance
divided by h * w - 1, the paper without a constant and divided by h * w. A map of
1x1 is 0 / 0 there, and is refused here. `cfc` starts at zero. Keys: `cfc` (a row of
[mean, deviation] weights for each channel) and `bn.*`.

The export form folds the BatchNorm into the two weights of each channel and a
shift: sigmoid(a mean + b deviation + c). n / (n - 1), n = h * w, goes into b and
the constant under the root: b sqrt(v n / (n - 1) + eps) is
b sqrt(n / (n - 1)) sqrt(v + eps (n - 1) / n). The variance stays the mean of squared
deviations. mean(x^2) - mean(x)^2 would save a pass, but it is the difference of
two large numbers where the mean is far from zero: at 20 deviations it costs two
digits, and on a constant map it can fall below -eps, whose root is NaN.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, affine_of_norm, area_of, both

_EPS = 1e-5


class SRM(ReferenceForm):
    """x * sigmoid(norm(cfc . [mean(x), deviation(x)])), `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "srm"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.cfc = nn.Parameter(torch.zeros(channels, 2))
        self.bn = nn.BatchNorm2d(channels)
        self.activation = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        self._check_map(x)
        values = x.flatten(2)
        mean = values.mean(2, keepdim=True)
        deviation = (values.var(2, keepdim=True) + _EPS).sqrt()
        style = torch.cat([mean, deviation], 2)  # (B, C, 2)
        mixed = (style * self.cfc[None]).sum(2)[:, :, None, None]
        gated: Tensor = x * self.activation(self.bn(mixed))
        return gated


class SRMExport(nn.Module):
    """SRM with one affine map of mean and deviation."""

    def __init__(self, reference: SRM, shape: MapShape) -> None:
        super().__init__()
        self.area = shape.area
        norm = affine_of_norm(reference.bn)
        of_mean, of_deviation = (norm.scale * weight for weight in reference.cfc.detach().unbind(1))
        unbiased = 1.0 if shape.area is None else shape.area / (shape.area - 1)
        self.eps = _EPS / unbiased
        self.register_buffer("of_mean", of_mean.reshape(1, -1, 1, 1))
        self.register_buffer("of_deviation", (of_deviation * unbiased**0.5).reshape(1, -1, 1, 1))
        self.register_buffer("shift", norm.shift.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        centred = x - mean
        variance = (centred * centred).mean((2, 3), keepdim=True)
        if self.area is None:
            area = area_of(x)
            variance = variance * (area / (area - 1))
        deviation = torch.sqrt(variance + self.eps)
        style = mean * self.get_buffer("of_mean") + deviation * self.get_buffer("of_deviation")
        return x * torch.sigmoid(style + self.get_buffer("shift"))


SRM.forms = both(SRMExport)
