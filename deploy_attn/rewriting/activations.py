"""The elementwise functions that a module may apply: what they compute, read off a grid of numbers."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy_attn.rewriting.forward_names import names_in_forward

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deploy_attn.modules.channel_gate import Elementwise

_CLAMPS = frozenset({"relu6", "clamp", "clip", "hardtanh"})  # what a hard sigmoid is often made of
_EXPONENTIALS = frozenset({"exp", "tanh"})
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, functools.partial)
_ROUNDING = 1e-13


class Activation(NamedTuple):
    """An elementwise function, and where it was seen.

    Attributes:
        name: torch's name for it, or the class's own.
        said: the name and the place, `Hardsigmoid (child gate)`.
        function: torch's where it equals one of torch's, else a copy of the module's own.
        is_gate: its values are from 0 to 1.
    """

    name: str
    said: str
    function: Elementwise
    is_gate: bool


def activations_of(module: nn.Module) -> tuple[Activation, ...]:
    """The functions that its children and attributes are, then those that its forward names, each once.

    Children without weights are run on a grid of numbers; the module itself is not. What changes nothing
    there (dropout in inference, a pool over one place) or is not elementwise is left out.
    """
    found: dict[str, Activation] = {}
    for where, function in (*_held(module), *_named(module)):
        activation = _read(function, where)
        if activation is not None:
            found.setdefault(activation.name, activation)
    gates = () if any(activation.is_gate for activation in found.values()) else _composed(module, found)
    return (*found.values(), *gates)


def gates_of(module: nn.Module) -> tuple[list[Activation], list[Activation]]:
    """Its functions from 0 to 1, and the others."""
    found = activations_of(module)
    return [each for each in found if each.is_gate], [each for each in found if not each.is_gate]


def unchanged(x: Tensor) -> Tensor:
    """What stands where a form takes a function and the module has none."""
    return x


def parts_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What a module is made of, by path; a child without weights is one part, whatever it holds."""
    from torch import nn

    for name, child in module.named_children():
        yield name, child
        if isinstance(child, nn.Sequential) or holds_tensors(child):
            yield from ((f"{name}.{path}", part) for path, part in parts_of(child))


def holds_tensors(module: nn.Module) -> bool:
    """Whether there is a parameter or a buffer in it, however deep."""
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())


def _held(module: nn.Module) -> Iterator[tuple[str, Elementwise]]:
    """Children without weights, and functions kept as attributes."""
    from torch import nn

    for path, part in parts_of(module):
        if not isinstance(part, nn.Sequential) and not holds_tensors(part):
            yield f"child {path}", part
    for name, value in vars(module).items():
        if isinstance(value, _FUNCTIONS) and getattr(value, "__module__", None) != "builtins":
            yield f"attribute {name}", value


def _named(module: nn.Module) -> Iterator[tuple[str, Elementwise]]:
    known = _known()
    spelled = {name.lower(): function for name, function in known.items()}
    spelled.update(swish=known["SiLU"], hswish=known["Hardswish"], hsigmoid=known["Hardsigmoid"])
    for name in _names(module):
        function = spelled.get(_spelled(name))
        if function is not None:
            yield f"{name} in forward", function


def _names(module: nn.Module) -> Iterator[str]:
    for part in (module, *(part for _, part in parts_of(module) if holds_tensors(part))):
        yield from names_in_forward(part)


def _spelled(name: str) -> str:
    return name.replace("_", "").lower()


def _composed(module: nn.Module, found: Mapping[str, Activation]) -> Iterator[Activation]:
    """A hard sigmoid that a module may make of a clamp, or a sigmoid of an exponential."""
    import torch

    names = {_spelled(name) for name in _names(module)}
    if not _CLAMPS.isdisjoint(names | {_spelled(name) for name in found}):
        yield Activation("Hardsigmoid", "Hardsigmoid (a clamp in forward)", _known()["Hardsigmoid"], is_gate=True)
    if not _EXPONENTIALS.isdisjoint(names):
        yield Activation("Sigmoid", "Sigmoid (an exponential in forward)", torch.sigmoid, is_gate=True)


def _read(function: Elementwise, where: str) -> Activation | None:
    """What a function is by its values; None if it is not elementwise, or nothing."""
    import torch
    from torch import nn

    from deploy_attn.modules.own_layers import own_activation

    grid = _grid()
    try:
        own = own_activation(function) if isinstance(function, nn.Module) else function
        with torch.no_grad():
            values = own(grid.reshape(1, -1, 1, 1).clone()).flatten()
            again = own(grid.reshape(2, -1, 1, 1).clone()).flatten()
    except Exception:  # a child may be made for anything
        return None
    if values.shape != grid.shape or not _same(again, values) or _same(values, grid) or bool(values.std() == 0):
        return None
    known = next((name for name, other in _known().items() if _same(other(grid), values)), None)
    name = known or str(getattr(function, "__name__", type(function).__name__))
    is_gate = bool(((values >= -_ROUNDING) & (values <= 1 + _ROUNDING)).all())
    return Activation(name, f"{name} ({where})", own if known is None else _known()[known], is_gate)


def _grid() -> Tensor:
    """Numbers around the corners of every common activation, and far out; an even count."""
    import torch

    near = torch.linspace(-12, 12, 2400, dtype=torch.float64)
    far = torch.logspace(-6, 12, 300, dtype=torch.float64)
    return torch.cat([near, far, -far])


def _same(first: Tensor, second: Tensor) -> bool:
    import torch

    return first.shape == second.shape and torch.allclose(first, second, rtol=_ROUNDING, atol=_ROUNDING)


def _known() -> dict[str, Callable[[Any], Any]]:
    """Torch's own functions by the names of their modules."""
    import torch
    from torch.nn import functional

    return {
        "ReLU": torch.relu,
        "Sigmoid": torch.sigmoid,
        "Hardsigmoid": functional.hardsigmoid,
        "SiLU": functional.silu,
        "Hardswish": functional.hardswish,
        "ReLU6": functional.relu6,
        "GELU": functional.gelu,
        "Mish": functional.mish,
        "Tanh": torch.tanh,
    }
