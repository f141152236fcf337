"""The source's code as it stands: what an export form's gain is measured against.

Naive means the operations that the source documents' own classes call, in their
order, with the reference form's weights: pooling layers, views, a Linear on the
pooled vector, permutes and slice assignments, exported without a change. Most
reference forms are written with those operations already and stand for
themselves. The modules here belong to those whose reference form is not.

One thing is not as it stands. S2's source copies overlapping slices in place,
which PyTorch leaves undefined; here each slice is assigned to a clone and read
from the original, which is the shift that the exporter makes of the source too.
Only `semantics="shift"` has this naive form.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def naive(name: str, reference: nn.Module) -> nn.Module:
    """The source's code for a catalogue module, with the weights of its reference form."""
    source = _SOURCES.get(name)
    return reference if source is None else source(reference).eval()


class _Source(nn.Module):
    """Holds the reference form, whose layers it calls."""

    def __init__(self, reference: nn.Module) -> None:
        super().__init__()
        self.reference = reference
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.largest = nn.AdaptiveMaxPool2d(1)

    def layer(self, name: str, x: Tensor) -> Tensor:
        result: Tensor = self.reference.get_submodule(name)(x)
        return result


class _SE(_Source):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _, _ = x.size()
        pooled = self.mean(x).view(batch, channels)
        return x * self.layer("fc", pooled).view(batch, channels, 1, 1)


class _CBAM(_Source):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _, _ = x.size()
        mean = self.layer("channel_attention.fc", self.mean(x).view(batch, channels))
        largest = self.layer("channel_attention.fc", self.largest(x).view(batch, channels))
        x = x * torch.sigmoid(mean + largest).view(batch, channels, 1, 1)
        highest, _ = torch.max(x, dim=1, keepdim=True)
        descriptor = torch.cat([torch.mean(x, dim=1, keepdim=True), highest], dim=1)
        return x * torch.sigmoid(self.layer("spatial_attention.conv", descriptor))


class _CBAMResidual(_Source):
    def forward(self, x: Tensor) -> Tensor:
        gated = x * torch.sigmoid(self.layer("ca.se", self.largest(x)) + self.layer("ca.se", self.mean(x)))
        highest, _ = torch.max(gated, dim=1, keepdim=True)
        descriptor = torch.cat([highest, torch.mean(gated, dim=1, keepdim=True)], dim=1)
        gated = gated * torch.sigmoid(self.layer("sa.conv", descriptor))
        return gated + x


class _ECA(_Source):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _, _ = x.size()
        pooled = self.mean(x).view(batch, 1, channels)
        return x * torch.sigmoid(self.layer("conv", pooled)).view(batch, channels, 1, 1)


class _ECAFixed(_Source):
    def forward(self, x: Tensor) -> Tensor:
        pooled = self.mean(x).squeeze(-1).permute(0, 2, 1)  # (B, 1, C)
        gate = torch.sigmoid(self.layer("conv", pooled)).permute(0, 2, 1).unsqueeze(-1)
        return x * gate.expand_as(x)


class _S2(_Source):
    def forward(self, x: Tensor) -> Tensor:
        channels = x.size(1)
        expanded = self.layer("mlp1", x.permute(0, 2, 3, 1))
        first = _shifted(expanded[:, :, :, :channels])
        second = _shifted_the_other_way(expanded[:, :, :, channels : channels * 2])
        mixed = self._mixed(torch.stack([first, second, expanded[:, :, :, channels * 2 :]], 1))
        return self.layer("mlp2", mixed).permute(0, 3, 1, 2)

    def _mixed(self, branches: Tensor) -> Tensor:
        batch, count, height, width, channels = branches.shape
        flat = branches.reshape(batch, count, -1, channels)
        descriptor = torch.sum(torch.sum(flat, 1), 1)
        hidden = nn.functional.gelu(self.layer("split_attention.mlp1", descriptor))
        logits = self.layer("split_attention.mlp2", hidden).reshape(batch, count, channels)
        weighted = torch.softmax(logits, 1).unsqueeze(-2) * flat
        return torch.sum(weighted, 1).reshape(batch, height, width, channels)


def _shifted(x: Tensor) -> Tensor:
    """Of `b h w c`: two quarters of the channels along h, then two along w."""
    channels = x.size(3)
    out = x.clone()
    out[:, 1:, :, : channels // 4] = x[:, :-1, :, : channels // 4]
    out[:, :-1, :, channels // 4 : channels // 2] = x[:, 1:, :, channels // 4 : channels // 2]
    out[:, :, 1:, channels // 2 : channels * 3 // 4] = x[:, :, :-1, channels // 2 : channels * 3 // 4]
    out[:, :, :-1, 3 * channels // 4 :] = x[:, :, 1:, 3 * channels // 4 :]
    return out


def _shifted_the_other_way(x: Tensor) -> Tensor:
    """Of `b h w c`: two quarters of the channels along w, then two along h."""
    channels = x.size(3)
    out = x.clone()
    out[:, :, 1:, : channels // 4] = x[:, :, :-1, : channels // 4]
    out[:, :, :-1, channels // 4 : channels // 2] = x[:, :, 1:, channels // 4 : channels // 2]
    out[:, 1:, :, channels // 2 : channels * 3 // 4] = x[:, :-1, :, channels // 2 : channels * 3 // 4]
    out[:, :-1, :, 3 * channels // 4 :] = x[:, 1:, :, 3 * channels // 4 :]
    return out


_SOURCES: Mapping[str, type[_Source]] = {
    "se": _SE,
    "cbam": _CBAM,
    "cbam_residual": _CBAMResidual,
    "eca": _ECA,
    "eca_fixed": _ECAFixed,
    "s2": _S2,
}
