"""Which tensors of a run look at the same memory, and whether the run made it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import tensors_in

if TYPE_CHECKING:
    from torch import Tensor


class Memory:
    """Told of every function call, it knows who looks at memory that a function made."""

    def __init__(self) -> None:
        self._lookers: dict[int, list[weakref.ref[Tensor]]] = {}

    def note(self, given: Any, returned: Any) -> None:
        """A function was called with these arguments and returned this."""
        old = {_address(x) for x in tensors_in(given)}
        for x in tensors_in(returned):
            address = _address(x)
            if address not in old:
                self._lookers[address] = [weakref.ref(x)]
            elif address in self._lookers:
                self._lookers[address].append(weakref.ref(x))

    def is_alone(self, x: Tensor) -> bool:
        """Whether a function made the memory of x in this run, and no other living tensor looks at it."""
        lookers = [looker() for looker in self._lookers.get(_address(x), [])]
        living = [looker for looker in lookers if looker is not None]
        return bool(living) and all(looker is x for looker in living)


def shares_memory(first: Any, second: Any) -> bool:
    """Whether a tensor among the first's looks at the memory of one among the second's."""
    return not {_address(x) for x in tensors_in(first)}.isdisjoint(_address(x) for x in tensors_in(second))


def is_same_view(first: Any, second: Any) -> bool:
    """Whether two tensors are the same elements of the same memory."""
    import torch

    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return False
    same_form = (first.shape, first.stride()) == (second.shape, second.stride())
    return same_form and first.data_ptr() == second.data_ptr()


def _address(x: Tensor) -> int:
    try:
        return x.untyped_storage().data_ptr()
    except NotImplementedError:  # a sparse tensor, or one inside torch.vmap, has no storage of its own
        return id(x)
