"""The two forms of a catalogue module, and the pieces that export forms share."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from deploy_attn.engines.target import FAMILIES
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.modules.catalogue import Shape as Shape
from deploy_attn.modules.catalogue import is_shape
from deploy_attn.modules.settings import check_map, check_open_map


class MapShape(NamedTuple):
    """The map that an export form is built for; a height and width of None are known at run time only."""

    channels: int
    height: int | None
    width: int | None

    @property
    def area(self) -> int | None:
        return None if self.height is None or self.width is None else self.height * self.width

    @property
    def known_size(self) -> tuple[int, int]:
        """Height and width, for a form whose graph is made for one size.

        Raises:
            ValueError: they are open; the module's entry should have refused that.
        """
        if self.height is None or self.width is None:
            raise ValueError("the height and width of this map are known at run time only")
        return self.height, self.width


class FormBuilder(Protocol):
    """An export form's class: built from the reference form and the shape of the map."""

    def __call__(self, reference: Any, shape: MapShape) -> nn.Module: ...


class ReferenceForm(nn.Module, abc.ABC):
    """A trainable attention module that knows its export forms.

    Takes and returns `b c h w`. Its state_dict keys are the source's. `forms`
    holds the class of the export form of each engine family.
    """

    catalogue_name: ClassVar[str]
    forms: ClassVar[Mapping[str, FormBuilder]]

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    def export_form(self, input_shape: Shape, engine: str = "cpu", dynamic_size: bool = False) -> nn.Module:
        """The inference-only form for maps of this size, equal in value.

        Args:
            input_shape: `b c h w`; the form is built for this c, h and w and
                takes any b.
            engine: the engine's family, `cpu` or `gpu`. Where measurement says
                that they want different graphs, this chooses between them.
            dynamic_size: build it for any h and w.

        Raises:
            BadRequest: an unknown family, a shape that the module cannot take,
                or an open size where its graph is made for one size.
        """
        if not is_shape(input_shape):
            raise BadRequest(f"{self.catalogue_name} takes maps of shape BxCxHxW, got {input_shape!r}.")
        _, channels, height, width = input_shape
        closed = MapShape(channels, height, width)
        self._check_shape(closed, engine)
        return self.form_for(MapShape(channels, None, None) if dynamic_size else closed, engine)

    def form_for(self, shape: MapShape, engine: str) -> nn.Module:
        """`export_form` for a map whose height and width may be open."""
        self._check_shape(shape, engine)
        return self.forms[engine](self, shape)

    def _check_shape(self, shape: MapShape, engine: str) -> None:
        name = self.catalogue_name
        if engine not in self.forms:
            raise BadRequest(f"Unknown engine family {engine!r} for {name}. Known: {', '.join(self.forms)}.")
        own = vars(self).get("channels")
        if own is not None and shape.channels != own:
            raise BadRequest(f"{name} was built for {own} channels, got a map of {shape.channels}.")
        if shape.height is None or shape.width is None:
            check_open_map(name, vars(self))
        else:
            check_map(name, vars(self), shape.height, shape.width)

    def _check_map(self, x: Tensor) -> None:
        """Raises BadRequest for a map that the source would fail on or answer with NaN."""
        if not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]  # a traced extent is a tensor, and was checked before
            check_map(self.catalogue_name, vars(self), x.shape[2], x.shape[3])


def both(form: FormBuilder) -> dict[str, FormBuilder]:
    """One export form for every engine family."""
    return dict.fromkeys(FAMILIES, form)


def area_of(x: Tensor) -> Tensor:
    """height * width of a map `b c h w` as a scalar of its type, also while it is traced with an open size."""
    return torch._shape_as_tensor(x)[2:].prod().to(x.dtype)


def tokens(x: Tensor, channels: int, shape: MapShape) -> Tensor:
    """A map of so many channels as `b channels n`, by a reshape that is static also where the size is open."""
    return x.flatten(2) if shape.area is None else x.reshape(-1, channels, shape.area)


def pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A 1x1 convolution from a weight of `out in` (or `out in 1 1`) and a bias."""
    matrix = weight.detach().reshape(weight.shape[0], weight.shape[1], 1, 1).clone()
    return convolution(matrix, bias, padding=(0, 0))


def convolution(weight: Tensor, bias: Tensor | None, padding: tuple[int, int], groups: int = 1) -> nn.Conv2d:
    """A convolution that holds these values; weight is `out in/groups kh kw`."""
    out_channels, in_channels, height, width = weight.shape
    conv = nn.Conv2d(
        in_channels * groups,
        out_channels,
        (height, width),
        padding=padding,
        groups=groups,
        bias=bias is not None,
        dtype=weight.dtype,
        device=weight.device,
    )
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer that holds these values; weight is `out in`."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, weight.device, weight.dtype)
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


class Affine(NamedTuple):
    """y = scale * x + shift, a channel each."""

    scale: Tensor
    shift: Tensor


def affine_of_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Affine:
    """What a BatchNorm computes in inference, with its own eps.

    Raises:
        BadRequest: it keeps no running statistics, so inference depends on the batch.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise BadRequest("A BatchNorm without running statistics depends on the batch; train it with them.")
    deviation = torch.sqrt(norm.running_var + norm.eps)
    weight = torch.ones_like(deviation) if norm.weight is None else norm.weight.detach()
    bias = torch.zeros_like(deviation) if norm.bias is None else norm.bias.detach()
    scale = weight / deviation
    return Affine(scale, bias - norm.running_mean * scale)


def fold_norm(conv: nn.Conv2d | nn.Linear, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer with the BatchNorm after it folded in."""
    affine = affine_of_norm(norm)
    weight = conv.weight.detach()
    scaled = weight * affine.scale.reshape(-1, *[1] * (weight.dim() - 1))
    bias = affine.shift if conv.bias is None else affine.shift + affine.scale * conv.bias.detach()
    return scaled, bias
