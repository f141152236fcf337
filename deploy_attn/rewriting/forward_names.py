"""What the compiled forward of a module names: readable without its source, and without running it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def names_in_forward(module: nn.Module) -> tuple[str, ...]:
    """Functions, methods and attributes that forward names, in order, but for the module's own attributes.

    Methods of the class that forward calls count too.
    """
    layers = (name for name, _ in module.named_children())
    tensors = (name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)))
    own = {*vars(module), *layers, *tensors}
    names = (name for code in _codes(module) for name in code.co_names)
    return tuple(dict.fromkeys(name for name in names if name not in own))


def numbers_in_forward(module: nn.Module) -> tuple[float, ...]:
    """The real numbers that are written in forward."""
    constants = (constant for code in _codes(module) for constant in code.co_consts)
    return tuple(dict.fromkeys(constant for constant in constants if isinstance(constant, float)))


def _codes(module: nn.Module) -> Iterator[CodeType]:
    """The code of forward and of the class's own methods that it reaches."""
    waiting, seen = ["forward"], set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        for function in _definitions(module, name):
            code = getattr(function, "__code__", None)
            if isinstance(code, CodeType) and not str(getattr(function, "__module__", "")).startswith("torch."):
                for part in _nested(code):
                    yield part
                    waiting += part.co_names


def _definitions(module: nn.Module, name: str) -> Iterator[object]:
    """The nearest definition of a name in a module, and the ones above it while each calls super."""
    for holder in (module, *type(module).__mro__):
        found = vars(holder).get(name)
        if found is not None:
            function = _undecorated(found)
            yield function
            if "super" not in getattr(getattr(function, "__code__", None), "co_names", ()):
                return


def _undecorated(found: object) -> object:
    try:
        return inspect.unwrap(found) if callable(found) else None
    except ValueError:  # it says that it wraps itself
        return None


def _nested(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions written inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)
