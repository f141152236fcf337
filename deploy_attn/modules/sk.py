"""Selective Kernel attention.

Selective Kernel Networks, arXiv 1903.06586, section 3.1, equations (1) to (6).

The source has one dense branch for each kernel of (1, 3, 5, 7), where the paper
has a grouped 3x3 and a dilated 3x3, and no BatchNorm and ReLU after the first
fully connected layer. Its convolutions keep a bias in front of BatchNorm. Keys:
`convs.i.conv.{weight,bias}`, `convs.i.bn.*`, `fc.{weight,bias}`,
`fcs.i.{weight,bias}`.

The export form takes four exact steps:

1. BatchNorm is folded into its convolution, and a kernel that is larger than
   the map can use is cropped (see cbam.py).
2. The branches are never stacked: each is multiplied by its weights where it
   lies, and their sum is built once, for the mean.
3. The layers that make the logits, one for each branch, are one 1x1
   convolution; its output viewed as `b k c` has the branches on axis 1, over
   which the softmax runs.
4. Two branches need no softmax: the weights are sigmoid(z1 - z2) and one minus
   that, and the difference is taken between the weights of the layers.

Other implementations share the form of this mixture: `SelectiveForm`.
"""

from __future__ import annotations

import abc
import functools
import operator
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, both, fold_norm, pointwise
from deploy_attn.modules.cbam import cropped_convolution
from deploy_attn.modules.own_layers import Block, Layer

_PAIR = 2  # branches


class SK(ReferenceForm):
    """Branches of several kernels, mixed by a softmax over the branches, `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "sk"

    def __init__(
        self,
        channels: int,
        kernel_sizes: tuple[int, ...] = (1, 3, 5, 7),
        reduction: int = 16,
        groups: int = 1,
        min_hidden: int = 32,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_sizes = kernel_sizes
        self.reduction = reduction
        self.groups = groups
        self.min_hidden = min_hidden
        hidden = max(min_hidden, channels // reduction)
        self.convs = nn.ModuleList(_branch(channels, kernel_size, groups) for kernel_size in kernel_sizes)
        self.fc = nn.Linear(channels, hidden)
        self.fcs = nn.ModuleList(nn.Linear(hidden, channels) for _ in kernel_sizes)
        self.softmax = nn.Softmax(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        branches = [conv(x) for conv in self.convs]
        descriptor = _sum(branches).mean(-1).mean(-1)  # (B, C)
        hidden = self.fc(descriptor)
        logits = [fc(hidden).reshape(-1, self.channels, 1, 1) for fc in self.fcs]
        weights = self.softmax(torch.stack(logits, 0))  # (K, B, C, 1, 1)
        mixed: Tensor = (weights * torch.stack(branches, 0)).sum(0)
        return mixed


def _branch(channels: int, kernel_size: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=groups),
            bn=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
        )
    )


def _sum(terms: list[Tensor]) -> Tensor:
    return functools.reduce(operator.add, terms)


class Selection(NamedTuple):
    """The layers that choose between k branches, BatchNorms folded in.

    Attributes:
        reduce: of the descriptor, `hidden c`.
        activation: of the hidden layer, if it has one.
        logits: `k*c hidden`, one branch after the other.
        branches: k, at least 2.
    """

    reduce: Layer
    activation: nn.Module | None
    logits: Layer
    branches: int


class SelectiveForm(nn.Module, abc.ABC):
    """Maps of one shape, mixed by a softmax over them; a subclass says which."""

    def __init__(self, convs: Iterable[nn.Module], selection: Selection) -> None:
        super().__init__()
        weight, bias = selection.logits
        self.branches = selection.branches
        self.channels = len(weight) // self.branches
        self.convs = nn.ModuleList(convs)
        self.fc = pointwise(*selection.reduce)
        self.activation = selection.activation
        if self.branches == _PAIR:
            weight, bias = _difference(weight), None if bias is None else _difference(bias)
        self.fcs = pointwise(weight, bias)

    @abc.abstractmethod
    def maps(self, x: Tensor) -> list[Tensor]:
        """What is to be mixed, `b c h w` each."""

    def forward(self, x: Tensor) -> Tensor:
        branches = self.maps(x)
        descriptor = _sum(branches).mean((2, 3), keepdim=True)
        hidden = self.fc(descriptor)
        logits = self.fcs(hidden if self.activation is None else self.activation(hidden))
        if self.branches == _PAIR:
            first, second = branches
            return second + torch.sigmoid(logits) * (first - second)
        weights = logits.reshape(-1, self.branches, self.channels).softmax(1)
        weights = weights.reshape(-1, self.branches * self.channels, 1, 1)
        shares = weights.split([self.channels] * self.branches, 1)
        return _sum([branch * share for branch, share in zip(branches, shares)])


def _difference(pair: Tensor) -> Tensor:
    first, second = pair.chunk(2)
    return first - second


class SKExport(SelectiveForm):
    """SK without a stack of the branches."""

    def __init__(self, reference: SK, shape: MapShape) -> None:
        layers: list[Any] = list(reference.fcs)
        logits = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        selection = Selection((reference.fc.weight, reference.fc.bias), None, logits, len(layers))
        super().__init__((_folded(branch, shape, reference.groups) for branch in reference.convs), selection)

    def maps(self, x: Tensor) -> list[Tensor]:
        return [torch.relu(conv(x)) for conv in self.convs]


def _folded(branch: Any, shape: MapShape, groups: int) -> nn.Conv2d:
    """A branch's convolution, its BatchNorm folded in."""
    weight, bias = fold_norm(branch.conv, branch.bn)
    return cropped_convolution(weight, bias, (shape.height, shape.width), groups)


class SelectiveBlocks(SelectiveForm):
    """Branches with a network's own convolutions and activations.

    Args:
        split: each branch takes its own share of the input's channels.
    """

    def __init__(self, blocks: Sequence[Block], selection: Selection, split: bool) -> None:
        super().__init__((block.convolution() for block in blocks), selection)
        self.activations = nn.ModuleList(block.activation or nn.Identity() for block in blocks)
        self.inputs = [conv.in_channels for conv in self.convs] if split else []

    def maps(self, x: Tensor) -> list[Tensor]:
        inputs = x.split(self.inputs, 1) if self.inputs else [x] * self.branches
        return [activate(conv(own)) for activate, conv, own in zip(self.activations, self.convs, inputs)]


SK.forms = both(SKExport)
