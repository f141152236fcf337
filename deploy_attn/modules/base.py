"""The two forms of a catalogue module, and the pieces that export forms share."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch import Tensor, nn

from deploy_attn.engines.target import FAMILIES
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.modules.catalogue import Shape as Shape


class ReferenceForm(nn.Module, abc.ABC):
    """A trainable attention module that knows its export form.

    Takes and returns `b c h w`. Its state_dict keys are the source's.
    """

    catalogue_name: ClassVar[str]

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def export_form(self, input_shape: Shape, engine: str = "cpu") -> nn.Module:
        """The inference-only form for maps of this size, equal in value.

        Args:
            input_shape: `b c h w`; the form is built for this c, h and w and
                takes any b.
            engine: the engine's family, `cpu` or `gpu`. Where measurement says
                that they want different graphs, this chooses between them.

        Raises:
            BadRequest: an unknown family, or a shape that the module cannot take.
        """


def check_request(form: ReferenceForm, input_shape: Shape, channels: int | None, engine: str) -> None:
    """Raises BadRequest for a family or a shape that no form can be built for."""
    if engine not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise BadRequest(f"Unknown engine family {engine!r} for {form.catalogue_name}. Known: {known}.")
    if len(input_shape) != 4 or min(input_shape) < 1:
        raise BadRequest(f"{form.catalogue_name} takes maps of shape BxCxHxW, got {tuple(input_shape)}.")
    if channels is not None and input_shape[1] != channels:
        raise BadRequest(f"{form.catalogue_name} was built for {channels} channels, got a map of {input_shape[1]}.")


def pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A 1x1 convolution from a weight of `out in` (or `out in 1 1`) and a bias."""
    matrix = weight.detach().reshape(weight.shape[0], weight.shape[1], 1, 1).clone()
    return convolution(matrix, bias, padding=(0, 0))


def convolution(weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> nn.Conv2d:
    """A dense convolution that holds these values; weight is `out in kh kw`."""
    out_channels, in_channels, height, width = weight.shape
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        (height, width),
        padding=padding,
        bias=bias is not None,
        dtype=weight.dtype,
        device=weight.device,
    )
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv
