"""What a network returns: its tensors and their names, from tuples, lists, dicts and data classes, however deep."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import parts_of, unused
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor

OUTPUT = "output"


def output_tensors(result: object) -> list[Tensor]:
    """The tensors of a network's result, in order; None among them is passed over.

    Raises:
        BadRequest: it holds none, or something that is no tensor of real numbers.
    """
    return [value for _, value in _named(result)]


def named_outputs(result: object, taken: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors of a network's result by name.

    A tensor by itself is `output`, those of a tuple or list `output_0`,
    `output_1` ...; what has names (dicts, named tuples, data classes) keeps
    them. A name of `taken` gets `output_` before it, and so does a number.

    Raises:
        BadRequest: as `output_tensors`.
    """
    named: dict[str, Tensor] = {}
    for name, value in _named(result):
        free = name not in taken and not name.isdecimal()  # the exporter takes no number for a name
        named[unused(name if free else f"{OUTPUT}_{name}", (*named, *taken))] = value
    return named


def dropped_outputs(result: object) -> list[str]:
    """The names of what is None in a network's result."""
    return [name for name, value in _leaves(result, "") if value is None]


def _named(result: object) -> list[tuple[str, Tensor]]:
    leaves = [(name, value) for name, value in _leaves(result, "") if value is not None]
    if not leaves:
        raise BadRequest(
            f"The network returns {_said(result)}; it must return a tensor, or tensors in a tuple, list or dict. "
            "Wrap it in a module whose forward returns those."
        )
    for name, value in leaves:
        problem = _problem(value)
        if problem is not None:
            where = "" if value is result else f" as {name!r}"
            raise BadRequest(
                f"The network returns {problem}{where}; it must return a tensor, or tensors in a tuple, list or dict. "
                "Wrap it in a module whose forward returns those."
            )
    return leaves


def _problem(value: object) -> str | None:
    """What a leaf of the result is, where no graph can give that."""
    import torch

    if not isinstance(value, torch.Tensor):
        return _said(value)
    if value.is_complex() or value.is_quantized or value.layout != torch.strided:
        return f"a tensor of {value.dtype}, {value.layout}"
    return None


def _said(value: object) -> str:
    empty = isinstance(value, (tuple, list, Mapping)) and not value
    return f"an empty {type(value).__name__}" if empty else type(value).__name__


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every part that holds no others, and its name."""
    parts = parts_of(value)
    if parts is None:
        yield name or OUTPUT, value
        return
    named = not isinstance(value, (tuple, list)) or hasattr(value, "_fields")
    for key, part in parts.items():
        if named:
            yield from _leaves(part, f"{name}_{key}" if name else str(key))
        else:
            yield from _leaves(part, f"{name or OUTPUT}_{key}" if name or len(parts) > 1 else OUTPUT)
