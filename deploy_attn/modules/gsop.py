"""Global second-order pooling.

Global Second-order Pooling Convolutional Networks, arXiv 1811.12006, section
3: the GSoP block, a channel gate computed from the covariance of the channels.

The source is the attention of the authors' bottleneck on its own, without the
stride of 2 that theirs takes at 64 planes or fewer. The map passes a ReLU before it is
reduced; what is gated is the map itself. The paper's row-wise normalisation and
convolution are a BatchNorm over the rows and a grouped convolution of a whole
row each, with no activation between that and the 1x1 convolution to the
channels. The covariance, divided by the number of places n, is centred by a
matrix of n x n. Keys: `conv_for_DR.*`, `bn_for_DR.*`, `row_bn.*`,
`row_conv_group.*`, `fc_adapt_channels.*`.

The export form computes the same gate without that matrix. Five steps, all exact:

1. I - 11^T / n is symmetric and its own square, so X (I - 11^T / n) X^T / n is
   Y Y^T / n, where Y is X less its mean over the places.
2. 1 / sqrt(n) is positive, so it passes through the ReLU and the centring, and
   goes into the first convolution. Both operands of the product carry it:
   nothing larger than a covariance appears, however many places are summed, and
   FP16 can hold it. Where the size is open, X is divided by sqrt(n) instead.
3. The first BatchNorm is folded into the convolution before it.
4. The second BatchNorm scales and shifts a row, and a row is one group of the
   convolution after it: the scale goes into that group's weights, the shift
   times the sum of a kernel's weights into its bias.
5. Y is kept transposed, channels innermost, as a GPU's convolution leaves them:
   the mean and the subtraction are one pass there, without a copy. A CPU's
   runtime undoes the transposes.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import (
    MapShape,
    ReferenceForm,
    affine_of_norm,
    area_of,
    both,
    convolution,
    fold_norm,
    pointwise,
    tokens,
)


class GSoP(ReferenceForm):
    """x * gate(covariance of the reduced channels), `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "gsop"

    def __init__(self, channels: int, att_dim: int = 128) -> None:
        super().__init__()
        self.channels = channels
        self.att_dim = att_dim
        self.conv_for_DR = nn.Conv2d(channels, att_dim, 1)
        self.bn_for_DR = nn.BatchNorm2d(att_dim)
        self.relu = nn.ReLU()
        self.row_bn = nn.BatchNorm2d(att_dim)
        self.row_conv_group = nn.Conv2d(att_dim, 4 * att_dim, (att_dim, 1), groups=att_dim)
        self.fc_adapt_channels = nn.Conv2d(4 * att_dim, channels, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.relu(self.bn_for_DR(self.conv_for_DR(self.relu(x))))
        covariance = _covariance(reduced.flatten(2))
        rows = self.row_bn(covariance.unsqueeze(3))  # (B, D, D, 1)
        return x * self.sigmoid(self.fc_adapt_channels(self.row_conv_group(rows)))


def _covariance(x: Tensor) -> Tensor:
    """Of the rows of `b d n` over n, biased, by the matrix that centres them: `b d d`."""
    places = x.shape[2]
    identity = torch.eye(places, dtype=x.dtype, device=x.device)
    centring = identity / places - torch.ones_like(identity) / places / places
    return x.bmm(centring.expand(x.shape[0], -1, -1)).bmm(x.transpose(1, 2))


class GSoPExport(nn.Module):
    """GSoP with the transpose of the centred map times that map."""

    def __init__(self, reference: GSoP, shape: MapShape) -> None:
        super().__init__()
        self.shape = shape
        self.att_dim = reference.att_dim
        weight, bias = fold_norm(reference.conv_for_DR, reference.bn_for_DR)
        root = 1.0 if shape.area is None else math.sqrt(shape.area)
        self.reduce = pointwise(weight / root, bias / root)
        self.rows = _rows(reference)
        self.adapt = pointwise(reference.fc_adapt_channels.weight, reference.fc_adapt_channels.bias)

    def forward(self, x: Tensor) -> Tensor:
        reduced = torch.relu(self.reduce(torch.relu(x)))
        places = tokens(reduced, self.att_dim, self.shape).transpose(1, 2)  # (B, N, D)
        if self.shape.area is None:
            places = places / area_of(x).sqrt()
        centred = places - places.mean(1, keepdim=True)
        covariance = centred.transpose(1, 2) @ centred
        rows = self.rows(covariance.reshape(-1, self.att_dim, self.att_dim, 1))
        return x * torch.sigmoid(self.adapt(rows))


def _rows(reference: GSoP) -> nn.Conv2d:
    """The convolution of each row, with the BatchNorm before it folded in."""
    conv, norm = reference.row_conv_group, affine_of_norm(reference.row_bn)
    per_output = conv.out_channels // conv.groups
    scale, shift = (vector.repeat_interleave(per_output) for vector in norm)
    weight = conv.weight.detach()
    bias = conv.get_parameter("bias").detach() + shift * weight.sum((1, 2, 3))
    return convolution(weight * scale.reshape(-1, 1, 1, 1), bias, padding=(0, 0), groups=conv.groups)


GSoP.forms = both(GSoPExport)
