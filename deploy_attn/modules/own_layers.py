"""A network's own layers, as the export forms take them: a convolution or matrix, its BatchNorm, its activation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from deploy_attn.modules.base import fold_norm

Layer = tuple[Tensor, Tensor | None]  # weight and bias

_WITHOUT_EFFECT = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in inference


class Block(NamedTuple):
    """A layer, the BatchNorm after it, and the activation after that."""

    layer: nn.Conv2d | nn.Linear
    norm: Any
    activation: nn.Module | None

    @property
    def inputs(self) -> int:
        """Channels taken, in all groups."""
        groups = self.layer.groups if isinstance(self.layer, nn.Conv2d) else 1
        return self.layer.weight.shape[1] * groups

    def folded(self) -> Layer:
        """Weight and bias, with the BatchNorm in them.

        Raises:
            BadRequest: the BatchNorm keeps no running statistics.
        """
        if self.norm is None:
            bias = self.layer.bias
            return self.layer.weight.detach(), None if bias is None else bias.detach()
        return fold_norm(self.layer, self.norm)

    def convolution(self) -> nn.Conv2d:
        """The convolution with its own stride, padding, dilation and groups, and with the BatchNorm in it.

        Padding is with zeros; a network that pads otherwise is told apart by its proof.
        """
        conv, (weight, bias) = self.layer, self.folded()
        if not isinstance(conv, nn.Conv2d):
            raise TypeError(f"{type(conv).__name__} is no convolution")
        made = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            stride=(conv.stride[0], conv.stride[1]),
            padding=_padding(conv),
            dilation=(conv.dilation[0], conv.dilation[1]),
            groups=conv.groups,
            bias=bias is not None,
            dtype=weight.dtype,
            device=weight.device,
        )
        made.weight = nn.Parameter(weight.clone(), requires_grad=False)
        if bias is not None:
            made.bias = nn.Parameter(bias.clone(), requires_grad=False)
        return made


def layer_of(weight: Tensor) -> nn.Linear | nn.Conv1d | nn.Conv2d:
    """A layer of a weight that a module holds by itself: a matrix, or a convolution that keeps the size of a map.

    How a forward pads a vector is not known; the layer of one does not.
    """
    outputs, inputs, *extents = weight.shape
    with torch.device("meta"):  # the weight comes from the module
        if not extents:
            made: nn.Linear | nn.Conv1d | nn.Conv2d = nn.Linear(inputs, outputs, bias=False)
        elif len(extents) == 1:
            made = nn.Conv1d(inputs, outputs, extents[0], bias=False)
        else:
            made = nn.Conv2d(inputs, outputs, (extents[0], extents[1]), padding="same", bias=False)
    made.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return made


def _padding(conv: nn.Conv2d) -> tuple[int, int]:
    if not isinstance(conv.padding, str):
        return conv.padding[0], conv.padding[1]
    reached = [rate * (size - 1) // 2 for rate, size in zip(conv.dilation, conv.kernel_size)]
    return (reached[0], reached[1]) if conv.padding == "same" else (0, 0)


def block_of(module: object) -> Block | None:
    """A layer with at most one BatchNorm and one activation after it, however they are nested; else None."""
    found = list(_steps(module)) if isinstance(module, nn.Module) else []
    if not found or not isinstance(found[0], (nn.Conv2d, nn.Linear)) or is_lazy(found[0].weight):
        return None
    layer, rest = found[0], found[1:]
    norm = rest.pop(0) if rest and isinstance(rest[0], _BatchNorm) else None
    activation = own_activation(rest.pop(0)) if rest and _holds_nothing(rest[0]) else None
    return None if rest else Block(layer, norm, activation)


def _steps(module: nn.Module) -> Iterator[nn.Module]:
    """What a module does, in the order of its children; a BatchNorm may hold the activation after it."""
    if isinstance(module, _WITHOUT_EFFECT):
        return
    composed = not isinstance(module, (nn.Conv2d, nn.Linear)) and not _holds_nothing(module)
    if not composed or isinstance(module, _BatchNorm) or not module._modules:
        yield module
    if composed:
        for child in module.children():
            yield from _steps(child)


def _holds_nothing(module: nn.Module) -> bool:
    """Whether it has neither weights nor buffers, as an activation."""
    return not any(True for _ in module.parameters()) and not any(True for _ in module.buffers())


def own_activation(module: nn.Module) -> nn.Module:
    """A copy that does not write into its input."""
    own = copy.deepcopy(module)
    for part in own.modules():
        if isinstance(vars(part).get("inplace"), bool):
            part.inplace = False  # type: ignore[assignment]  # a plain attribute
    return own


class ChannelsLast(nn.Module):
    """A form of maps `b c h w` for a network whose maps there are `b h w c`."""

    def __init__(self, form: nn.Module) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.form(x.permute(0, 3, 1, 2))
        return result.permute(0, 2, 3, 1)
