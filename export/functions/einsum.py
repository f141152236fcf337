"""Einsum of two tensors as one matrix product: TensorRT 8.0 has no Einsum, 8.2 none with an ellipsis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy_attn.export.functions.rule import Aim, sizes_of

if TYPE_CHECKING:
    from torch import Tensor

_SPARE_LETTERS = "ZYXWVUTSRQPONMLKJIHGFEDCBA"  # stand for the axes of an ellipsis, the last axis first


class _Terms(NamedTuple):
    """The letters of both operands and of the result."""

    first: str
    second: str
    result: str

    @property
    def are_one_product(self) -> bool:
        """No letter twice in a term, and none that is summed in one operand alone."""
        once = all(len(set(term)) == len(term) for term in self)
        return once and set(self.first) ^ set(self.second) <= set(self.result) <= set(self.first + self.second)


def einsum(aim: Aim, equation: Any, first: Any = None, second: Any = None) -> Tensor | None:
    """Permuted to `batch left summed` and `batch summed right`, multiplied, permuted back."""
    import torch

    operands = [part for part in (first, second) if isinstance(part, torch.Tensor)]
    if not isinstance(equation, str) or len(operands) != 2 or aim.open_size:
        return None
    terms = _terms_of(equation, [part.dim() for part in operands])
    extents = dict(zip(terms.first, sizes_of(operands[0])))
    if not terms.are_one_product or any(extents.get(a, n) != n for a, n in zip(terms.second, sizes_of(operands[1]))):
        return None
    extents = {**dict(zip(terms.second, sizes_of(operands[1]))), **extents, terms.first[0]: -1}  # the batch may be open
    shared = [letter for letter in terms.result if letter in terms.first and letter in terms.second]
    left, right = (
        "".join(letter for letter in terms.result if letter in own and letter not in shared)
        for own in (terms.first, terms.second)
    )
    summed = "".join(letter for letter in terms.first if letter not in terms.result)
    product = _grouped(operands[0], terms.first, [*shared, left, summed], extents) @ _grouped(
        operands[1], terms.second, [*shared, summed, right], extents
    )
    order = "".join([*shared, left, right])
    return product.reshape([extents[letter] for letter in order]).permute([order.index(a) for a in terms.result])


def _terms_of(equation: str, ranks: list[int]) -> _Terms:
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    first, _, second = inputs.partition(",")
    hidden = [rank - len(term.replace("...", "")) for term, rank in zip((first, second), ranks)]
    spare = [letter for letter in _SPARE_LETTERS if letter not in equation]
    full = [term.replace("...", "".join(reversed(spare[:count]))) for term, count in zip((first, second), hidden)]
    if not arrow:
        letters = first + second
        result = "..." * ("..." in letters) + "".join(sorted(a for a in letters if a != "." and letters.count(a) == 1))
    return _Terms(full[0], full[1], result.replace("...", "".join(reversed(spare[: max(hidden)]))))


def _grouped(x: Tensor, term: str, groups: list[str], extents: Mapping[str, int]) -> Tensor:
    """x with its axes in this order, the letters of a group as one axis."""
    moved = x.permute([term.index(letter) for letter in "".join(groups)])
    if all(len(group) == 1 for group in groups):
        return moved
    sizes = [[extents[letter] for letter in group] for group in groups]
    return moved.reshape([-1 if -1 in size else math.prod(size) for size in sizes])
