"""Which calls take values of tensors for Python, or make an extent of them: a trace freezes what follows.

`if x.sum() > 0` chooses a way, `float(x.max())` becomes a constant, `x[x > 0]` has other
extents each time. Shapes are no such values: outside a trace they are plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import tensors_in

if TYPE_CHECKING:
    from torch import Tensor

    Depends = Callable[[Tensor], bool]

_READERS = frozenset(
    (
        *("__array__", "__bool__", "__complex__", "__contains__", "__float__", "__format__", "__index__", "__int__"),
        *("__repr__", "allclose", "equal", "is_nonzero", "item", "numpy", "tolist"),
    )
)
_FROM_LISTS = frozenset(("as_tensor", "asarray", "new_tensor", "tensor"))
_CHOOSERS = frozenset(
    ("argwhere", "bincount", "masked_select", "nonzero", "nonzero_numpy", "unique", "unique_consecutive")
)
_MAKERS = frozenset(("arange", "empty", "eye", "ones", "zeros"))
_SHAPERS = frozenset(
    (
        *("chunk", "expand", "narrow", "new_empty", "new_ones", "new_zeros", "repeat", "reshape", "split"),
        *("split_with_sizes", "tensor_split", "tile", "topk", "unflatten", "unfold", "view"),
    )
)
_OF_THE_FORM = frozenset(
    (
        *("empty_like", "full_like", "ones_like", "rand_like", "randint_like", "randn_like", "zeros_like"),
        *("new_empty", "new_full", "new_ones", "new_zeros"),
    )
)


def what_is_read(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], depends: Depends) -> str | None:
    """What a call does with values that follow from the input: a Python value, or extents; None for neither.

    Args:
        name: of the function.
        depends: whether a tensor follows from the values of the input.
    """
    given = [tensor for tensor in _tensors((args, kwargs)) if depends(tensor)]
    if name in _READERS:
        return f"takes {name.strip('_')}() of {_said(given)}" if given else None
    if name in _FROM_LISTS:
        listed = [part for part in (*args, *kwargs.values()) if isinstance(part, (list, tuple))]
        return _if_any("takes the values of", listed, depends)
    return _if_any("makes an extent of", _extents(name, args, kwargs), depends)


def follows(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], depends: Depends) -> bool:
    """Whether the result of a call follows from the values of the input; `zeros_like` takes only a form."""
    values = args[1:] if name in _OF_THE_FORM else args
    return any(depends(tensor) for tensor in _tensors((values, kwargs)))


def _if_any(what: str, parts: Iterable[Any], depends: Depends) -> str | None:
    found = [tensor for tensor in _tensors(tuple(parts)) if depends(tensor)]
    return f"{what} {_said(found)}" if found else None


def _extents(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """The arguments whose values decide an extent of the result."""
    import torch

    named = [value for key, value in kwargs.items() if key not in ("input", "out")]
    if name in _CHOOSERS or (name == "where" and len(args) + len(kwargs) == 1):
        yield from (args, kwargs)
    elif name in _MAKERS:
        yield from (args, named)
    elif name in _SHAPERS:
        yield from (args[1:], named)
    elif name == "repeat_interleave" and kwargs.get("output_size") is None:
        yield kwargs.get("repeats", args[:2][-1:])  # alone, they come first
    elif name == "__getitem__":
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        for part in parts:
            if isinstance(part, slice) or (isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8)):
                yield part


def _tensors(value: Any) -> Iterator[Tensor]:
    """`tensors_in`, in slices as well."""
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    else:
        yield from tensors_in(value)


def _said(tensors: list[Tensor]) -> str:
    """`a tensor of 2x3 computed from the input`."""
    extents = "x".join(map(str, tensors[0].shape))
    return f"{'one value' if tensors[0].numel() == 1 else f'a tensor of {extents}'} computed from the input"
