"""What a network is called with: tensors by place and by name, in tuples, lists and dicts as deep as they come."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    Feeds = Mapping[str, np.ndarray[Any, Any]]

INPUT = "input"


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call of a network."""

    positional: tuple[Any, ...]
    named: Mapping[str, Any]

    @classmethod
    def of(cls, example: object) -> Arguments:
        """From a tensor, a tuple or list of positional arguments, or a mapping of named ones.

        Raises:
            BadRequest: there is no tensor in it.
        """
        if isinstance(example, Arguments):
            return example
        if isinstance(example, Mapping):
            arguments = cls((), dict(example))
        elif isinstance(example, (tuple, list)):
            arguments = cls(tuple(example), {})
        else:
            arguments = cls((example,), {})
        if not any(True for _ in tensors_in((arguments.positional, arguments.named))):
            raise BadRequest(
                f"An example input is a tensor, a tuple of the network's arguments, or a dict of its named ones; "
                f"there is no tensor in this {type(example).__name__}."
            )
        return arguments

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of the call."""
        return list(tensors_in((self.positional, self.named)))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Arguments:
        """The same arguments with every tensor changed."""
        positional, named = with_tensors((self.positional, dict(self.named)), change)
        return Arguments(positional, named)

    def as_type(self, dtype: torch.dtype) -> Arguments:
        """The same on the CPU, real numbers in this type; it may share memory with what it was made of."""
        return self.mapped(lambda x: x.detach().to("cpu", dtype) if x.is_floating_point() else x.detach().cpu())

    def with_values(self, tensors: Iterable[Tensor]) -> Arguments:
        """The same call with other tensors, in the order of `tensors`."""
        values = iter(tensors)
        return self.mapped(lambda _: next(values))

    def call(self, network: nn.Module) -> Any:
        """What the network returns for a copy of these arguments, so that it may write into them."""
        fresh = self.mapped(lambda x: x.clone())
        return network(*fresh.positional, **fresh.named)


@dataclass(frozen=True)
class Call:
    """How a network is called, with a name for every tensor: a graph's inputs, and a parity case's."""

    example: Arguments
    names: tuple[str, ...]

    @classmethod
    def of(cls, network: nn.Module, example: Tensor | Arguments | Call) -> Call:
        """`input` for a tensor by itself, the names that forward gives its arguments otherwise.

        Raises:
            BadRequest: forward takes other arguments.
        """
        if isinstance(example, Call):
            return example
        arguments = Arguments.of(example)
        bound = _bound(network, arguments)
        if len(arguments.positional) == len(bound) == len(arguments.tensors) == 1:
            return cls(arguments, (INPUT,))
        names: list[str] = []
        for name in (name for key, value in bound.items() for name in _leaf_names(key, value)):
            names.append(unused(name, names))
        return cls(arguments, tuple(names))

    def arguments(self, feeds: Feeds) -> Arguments:
        """The call with these arrays; copies, so that the network may write into them."""
        import torch

        return self.example.with_values(torch.from_numpy(feeds[name]).clone() for name in self.names)


def _bound(network: nn.Module, arguments: Arguments) -> dict[str, Any]:
    """Every argument by its name in forward, in the order of the call."""
    try:
        signature = inspect.signature(network.forward)
    except (TypeError, ValueError):  # compiled code has none
        return {**{f"{INPUT}_{index}": value for index, value in enumerate(arguments.positional)}, **arguments.named}
    try:
        bound = signature.bind(*arguments.positional, **arguments.named).arguments
    except TypeError as error:
        given = [f"{len(arguments.positional)} by place"] if arguments.positional else []
        given += [f"{name!r} by name" for name in arguments.named]
        takes = str(signature).rpartition(" -> ")[0] or str(signature)
        raise BadRequest(
            f"The network's forward takes {takes}, and was given {' and '.join(given)}: {error}. "
            "Give a shape for each input, in their order, or by name as NAME=SHAPE."
        ) from error
    by_name: dict[str, Any] = {}
    for key, value in bound.items():
        kind = signature.parameters[key].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            by_name.update(value)
        elif key not in arguments.named:
            by_name[key] = value
    return {**by_name, **arguments.named}


def _leaf_names(name: str, value: object) -> Iterator[str]:
    """A name for every tensor in an argument: its own, or with the places and keys that lead to it."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name
    for key, part in (parts_of(value) or {}).items():
        yield from _leaf_names(f"{name}_{key}", part)


def unused(name: str, taken: Collection[str]) -> str:
    """A name as ONNX files and npz archives take it, with a number behind it where it is taken."""
    plain = re.sub(r"[^A-Za-z0-9_.]", "_", name) or "_"
    count, free = 1, plain
    while free in taken:
        count, free = count + 1, f"{plain}_{count + 1}"
    return free


def parts_of(value: Any) -> dict[Any, Any] | None:
    """What a tuple, list, dict or data class holds, by place or key; None for anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value))
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    return None


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors of nested tuples, lists, dicts and data classes, in order."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    for part in (parts_of(value) or {}).values():
        yield from tensors_in(part)


def with_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest with every tensor changed; what is no tensor stays."""
    import torch

    if isinstance(value, torch.Tensor):
        return change(value)
    parts = parts_of(value)
    if parts is None:
        return value
    changed = {key: with_tensors(part, change) for key, part in parts.items()}
    if isinstance(value, Mapping):
        return changed
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **changed)
    if hasattr(value, "_fields"):
        return type(value)(*changed.values())
    return type(value)(changed.values())
