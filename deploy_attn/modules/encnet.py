"""EncNet context encoding.

Context Encoding for Semantic Segmentation, arXiv 1803.08904, section 3, equation (1).

The source takes the mean over the codewords of the residuals after norm and
ReLU (the paper: their sum), and ends with relu(x + x * gate) (the paper: x *
gate). Its smoothing factors, `scale`, carry the minus sign of the paper's
exponent: they start between -1 and 0. Keys: `encoding.0.weight`, `encoding.1.*`,
`encoding.3.{codewords,scale}`, `encoding.4.*`, `fc.0.*`, and `selayer.*` with
`se_loss`.

The export form never holds the residuals, `b n k c`. With features z, codewords
d_k, scales s_k and weights a_k:

1. s_k |z - d_k|^2 = s_k |z|^2 - 2 s_k z.d_k + s_k |d_k|^2, where the last two
   terms are one layer. A softmax over k does not see what all k have in common,
   so max(s) |z|^2 is taken off: where features are far away and the scales
   alike, rounding of |z|^2 would hide the rest.
2. sum_n a_k (z - d_k) = sum_n a_k z - (sum_n a_k) d_k, a matrix product and a sum.
   Both expansions cancel where the codewords lie close together and far from
   zero; there, their mean m is taken off the codewords and the features:
   relu(y) - m = max(y - m, -m), and -m goes into the layer that makes y.
3. The BatchNorm of the features is folded into their layer; that of the
   residuals is a scale and a shift of each codeword.
4. relu(x + x g) = relu(x) (1 + g), because g > 0.

Features are `b n c` from the start: their layer is a matrix product that reads
the map transposed, and no copy of them is made for what comes after it. The
weights are transposed once, to `b k n`, and their sums are taken from that: both
then come out of the kernel that ends the softmax.

For CPUs, weights below 2^-100 are raised to that. The softmax of logits that
are far apart makes subnormal numbers, with which some CPUs multiply a hundred
times slower; what is added is far below the rounding of float64. Multiplying
them costs a GPU nothing, so its form leaves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, affine_of_norm, fold_norm, linear, pointwise, tokens

_SMALLEST = 2.0**-100
_FAR = 16.0  # squared distance of the codewords' mean from zero over that of the codewords from their mean


class EncNet(ReferenceForm):
    """relu(x + x * gate), the gate from residuals to learnt codewords, `b c h w -> b c h w`.

    With `se_loss`, `selayer` holds the head of the auxiliary training loss, so
    that checkpoints with it load; its logits are not computed: forward returns
    the map only.
    """

    catalogue_name: ClassVar[str] = "encnet"

    def __init__(self, channels: int, codes: int = 32, se_loss: bool = False, classes: int = 19) -> None:
        super().__init__()
        self.channels = channels
        self.codes = codes
        self.se_loss = se_loss
        self.classes = classes
        self.encoding = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            _Encoding(channels, codes),
            nn.BatchNorm1d(codes),
            nn.ReLU(),
            _MeanOfCodes(),
        )
        self.fc = nn.Sequential(nn.Linear(channels, channels), nn.Sigmoid())
        if se_loss:
            self.selayer = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.shape
        gate = self.fc(self.encoding(x)).view(b, c, 1, 1)
        return torch.relu(x + x * gate)


class _Encoding(nn.Module):
    """Residuals to the codewords, summed with soft weights, `b c h w -> b k c`."""

    def __init__(self, channels: int, codes: int) -> None:
        super().__init__()
        bound = (codes * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(codes, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(codes).uniform_(-1, 0))

    def forward(self, x: Tensor) -> Tensor:
        features = x.flatten(2).transpose(1, 2)  # (B, N, C)
        residuals = features.unsqueeze(2) - self.codewords  # (B, N, K, C)
        weights = (self.scale * residuals.pow(2).sum(3)).softmax(2)  # (B, N, K)
        return (weights.unsqueeze(3) * residuals).sum(1)


class _MeanOfCodes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class EncNetGpu(nn.Module):
    """EncNet by matrix products, tokens first."""

    def __init__(self, reference: EncNet, shape: MapShape) -> None:
        super().__init__()
        self.shape = shape
        encoding: Any = reference.encoding
        offset = _offset(encoding[3].codewords.detach())
        codewords, scale = encoding[3].codewords.detach() - offset, encoding[3].scale.detach()
        weight, bias = fold_norm(encoding[0], encoding[1])
        self.features = linear(weight.flatten(1), bias - offset)
        self.rectify = _AtLeast(-offset) if bool(offset.any()) else nn.ReLU()
        self.similarity = linear(-2 * scale[:, None] * codewords, scale * codewords.square().sum(1))
        self.register_buffer("scale", scale - scale.max())
        self.register_buffer("codewords", codewords)
        affine = affine_of_norm(encoding[4])
        self.register_buffer("norm_scale", affine.scale[:, None])
        self.register_buffer("norm_shift", affine.shift[:, None])
        self.gate = pointwise(reference.get_parameter("fc.0.weight"), reference.get_parameter("fc.0.bias"))

    def forward(self, x: Tensor) -> Tensor:
        return self.gated(x, self.code(x))

    def code(self, x: Tensor) -> Tensor:
        """`b c h w -> b c 1 1`."""
        places = tokens(x, self.shape.channels, self.shape).transpose(1, 2)
        features = self.rectify(self.features(places))  # (B, N, C)
        squares = (features * features).sum(2, keepdim=True)
        logits = self.similarity(features) + squares * self.get_buffer("scale")  # (B, N, K)
        weights = self._weights(logits).transpose(1, 2)
        shares = weights.sum(2, keepdim=True)
        residuals = weights @ features - shares * self.get_buffer("codewords")  # (B, K, C)
        normed = residuals * self.get_buffer("norm_scale") + self.get_buffer("norm_shift")
        return torch.relu(normed).mean(1).reshape(-1, self.shape.channels, 1, 1)

    def gated(self, x: Tensor, code: Tensor) -> Tensor:
        """The map, gated by its code."""
        return torch.relu(x) * (1 + torch.sigmoid(self.gate(code)))

    def _weights(self, logits: Tensor) -> Tensor:
        return logits.softmax(2)


class EncNetTuple(nn.Module):
    """What the source's module returns: the gated map, and with the head of its loss the logits `b classes`.

    Args:
        kind: tuple or list.
    """

    def __init__(self, reference: EncNet, form: EncNetGpu, kind: type) -> None:
        super().__init__()
        self.form = form
        self.kind = kind
        self.head: nn.Linear | None = None
        if reference.se_loss:
            self.head = linear(reference.selayer.weight, reference.selayer.bias)

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        code = self.form.code(x)
        returned = [self.form.gated(x, code)]
        if self.head is not None:
            returned.append(self.head(code.flatten(1)))
        return self.kind(returned)


class _AtLeast(nn.Module):
    """max(x, floor), a floor for each channel."""

    def __init__(self, floor: Tensor) -> None:
        super().__init__()
        self.register_buffer("floor", floor)

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.get_buffer("floor"))


def _offset(codewords: Tensor) -> Tensor:
    """The codewords' mean where they lie close together and far from zero, else zero."""
    mean = codewords.mean(0)
    spread = (codewords - mean).square().sum(1).mean()
    return mean if bool(mean.square().sum() > _FAR * spread) else torch.zeros_like(mean)


class EncNetCpu(EncNetGpu):
    """The same without subnormal weights."""

    def _weights(self, logits: Tensor) -> Tensor:
        return logits.softmax(2).clamp(min=_SMALLEST)


EncNet.forms = {"cpu": EncNetCpu, "gpu": EncNetGpu}
