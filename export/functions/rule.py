"""What a rule is: a function of PyTorch, and the form that an exporter reads instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import tensors_in, with_tensors

if TYPE_CHECKING:
    from torch import Tensor


class NoForm(Exception):
    """Exporters have trouble with this call, and there is no exact form of it: why, and what to do."""


@dataclass(frozen=True)
class Aim:
    """What the graph must be.

    Attributes:
        opset: of the file.
        open_size: height and width stay open, so that no form may hold the traced ones.
    """

    opset: int
    open_size: bool = False


@dataclass(frozen=True)
class FunctionCall:
    """One call of a function.

    Attributes:
        args: as the function got them.
        kwargs: as the function got them.
        first: the first argument; a tensor, unless the function takes an equation.
        settings: the other arguments by name.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    first: Any
    settings: Mapping[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, each once."""
        return list({id(x): x for x in tensors_in((self.args, self.kwargs))}.values())

    def with_tensors(self, new: Sequence[Tensor]) -> FunctionCall:
        """The call with other tensors, in the order of `tensors`; what was one tensor stays one."""
        changed = {id(x): other for x, other in zip(self.tensors, new)}
        parts = (self.args, dict(self.kwargs), self.first, dict(self.settings))
        return FunctionCall(*with_tensors(parts, lambda x: changed[id(x)]))


@dataclass(frozen=True)
class Rule:
    """How a function is written instead.

    Attributes:
        form: `form(aim, first, **settings)`. It returns the function's value
            from other operators, or None where the function itself is as good,
            or raises NoForm. It changes none of its arguments.
        names: the function's arguments after the first, in order, with spaces between.
        writes: the function writes into its first argument and returns nothing;
            the form then returns what that argument holds afterwards.
    """

    form: Callable[..., Any]
    names: str
    writes: bool = False

    def call_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> FunctionCall | None:
        """The call with its arguments by name; None for one that does not fit the names."""
        given, names = dict(kwargs), self.names.split()
        places = list(args) or [given.pop("input", None)]
        settings = {**dict(zip(names, places[1:])), **given}
        fits = len(places) <= len(names) + 1 and settings.keys() <= set(names)
        return FunctionCall(args, kwargs, places[0], settings) if fits else None

    def answer(self, aim: Aim, call: FunctionCall) -> Any:
        """What the form gives for a call."""
        return self.form(aim, call.first, **call.settings)

    def described(self, call: FunctionCall) -> str:
        """The call as text: the function, the shapes of tensors, all other values."""
        parts = [_said(call.first)]
        parts += [f"{name}={_said(value)}" for name, value in call.settings.items() if value is not None]
        return f"{self.form.__name__}({', '.join(parts)})"


def sizes_of(x: Tensor) -> tuple[int, ...]:
    """The extents as numbers, also while the tensor is traced."""
    return tuple(int(extent) for extent in x.shape)


def pair(value: Any) -> tuple[Any, Any]:
    """Two values from two or from one."""
    return (value[0], value[-1]) if isinstance(value, (tuple, list)) else (value, value)


def _said(value: Any) -> str:
    import torch

    if isinstance(value, torch.Tensor):
        real = value.is_floating_point() or value.is_complex()
        if not real and value.dim() == 0:
            return str(int(value))  # an extent of a traced tensor
        shape = "x".join(map(str, sizes_of(value))) or "scalar"
        return shape if real else f"{shape}:{str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_said, value))})"
    if isinstance(value, slice):
        return ":".join("" if part is None else _said(part) for part in (value.start, value.stop, value.step))
    return repr(value)
