"""Writes into a part of a tensor, as `y[:, 1:] = x[:, :-1]`: slices and concatenations instead of a scatter.

A tensor that is written piece by piece is put together once, of its last pieces.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import tensors_in
from deploy_attn.export.functions.rule import Aim, sizes_of

if TYPE_CHECKING:
    from torch import Tensor

    Span = tuple[int, int]


def write_slices(aim: Aim, y: Tensor, index: Any, value: Any) -> Tensor | None:
    """What y holds after `y[index] = value`; the index is of numbers, slices of step 1 and an ellipsis."""
    spans = _spans(aim, y, index)
    return None if spans is None else _Pieces(y).with_part(spans, _as_part(y, index, value)).whole()


class Written:
    """The tensors of a run that only writes have touched since the first write, as pieces."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], _Pieces]] = {}

    def write(self, aim: Aim, y: Tensor, index: Any, value: Any) -> Tensor | None:
        """`write_slices`, from the pieces of earlier writes where there are some."""
        spans = _spans(aim, y, index)
        if spans is None:
            return None
        known, pieces = self._known.get(id(y), (None, _Pieces(y)))
        if known is None or known() is not y:
            pieces = _Pieces(y)
        # The caller may change the value later; the write has taken it as it is.
        pieces = pieces.with_part(spans, _as_part(y, index, value).clone())
        self._known[id(y)] = (weakref.ref(y), pieces)
        return pieces.whole()

    def touched(self, values: Any) -> None:
        """Something else reads or changes these."""
        if self._known:
            for x in tensors_in(values):
                self._known.pop(id(x), None)


@dataclass(frozen=True)
class _Pieces:
    """A tensor, or pieces of it one after the other along an axis."""

    tensor: Tensor | None = None
    axis: int = 0
    parts: tuple[tuple[int, _Pieces], ...] = ()  # with their extents

    def whole(self) -> Tensor:
        """All pieces as one tensor."""
        import torch

        if self.tensor is not None:
            return self.tensor
        return torch.cat([part.whole() for _, part in self.parts], self.axis)

    def with_part(self, spans: list[Span | None], value: Tensor) -> _Pieces:
        """With the value where the spans say so, one an axis; None is all of an axis."""
        if all(span is None for span in spans):
            return _Pieces(value)
        pieces = self if self.tensor is None else self._cut(spans)
        span, begin = spans[pieces.axis], 0
        parts = []
        for extent, part in pieces.parts:
            start, end = (0, extent) if span is None else (max(span[0] - begin, 0), min(span[1] - begin, extent))
            if start < end:
                inner = list(spans)
                inner[pieces.axis] = None if (start, end) == (0, extent) else (start, end)
                offset = begin + start - (0 if span is None else span[0])
                fits = sizes_of(value)[pieces.axis] == end - start
                own = value if fits else value.narrow(pieces.axis, offset, end - start)
                part = part.with_part(inner, own)
            parts.append((extent, part))
            begin += extent
        return _Pieces(None, pieces.axis, tuple(parts))

    def _cut(self, spans: list[Span | None]) -> _Pieces:
        """A tensor cut along the first axis of which the spans take a part."""
        if self.tensor is None:
            raise ValueError("only a tensor is cut")
        axis, (start, end) = next((axis, span) for axis, span in enumerate(spans) if span is not None)
        extent = sizes_of(self.tensor)[axis]
        cuts = [(low, high) for low, high in ((0, start), (start, end), (end, extent)) if low < high]
        return _Pieces(
            None, axis, tuple((high - low, _Pieces(self.tensor.narrow(axis, low, high - low))) for low, high in cuts)
        )


def _spans(aim: Aim, y: Tensor, index: Any) -> list[Span | None] | None:
    """The part of each axis that an index names, None for all of it.

    None for an index of another kind, or of nothing, or of everything.
    """
    parts = _in_full(index if isinstance(index, tuple) else (index,), y.dim())
    if parts is None or aim.open_size:
        return None
    spans = []
    for part, extent in zip(parts, sizes_of(y)):
        start, end, step = _bounds(part, extent)
        if step != 1 or start >= end:
            return None
        spans.append(None if (start, end) == (0, extent) else (start, end))
    return None if all(span is None for span in spans) else spans


def _as_part(y: Tensor, index: Any, value: Any) -> Tensor:
    """The value in the type of y, with an axis for each of y's and the extents of what it is written into."""
    import torch

    written = value if isinstance(value, torch.Tensor) else torch.tensor(value, device=y.device)
    part = y[index]
    written = written.to(y.dtype)
    while written.dim() > part.dim():
        written = written.squeeze(0)
    if sizes_of(written) != sizes_of(part):
        written = written.expand_as(part)
    for axis, place in enumerate(_in_full(index if isinstance(index, tuple) else (index,), y.dim()) or []):
        if not isinstance(place, slice):
            written = written.unsqueeze(axis)
    return written


def _in_full(index: tuple[Any, ...], rank: int) -> list[Any] | None:
    """One number or slice an axis; None for an index of another kind."""
    parts: list[Any] = []
    for part in index:
        if part is Ellipsis:
            parts += [slice(None)] * (rank - len(index) + 1)
        elif isinstance(part, slice) or _is_number(part):
            parts.append(part)
        else:
            return None
    return parts + [slice(None)] * (rank - len(parts))


def _is_number(part: Any) -> bool:
    """A place on an axis; in a trace a computed one is a tensor."""
    import torch

    if isinstance(part, torch.Tensor):
        return part.dim() == 0 and part.dtype == torch.int64
    return isinstance(part, int) and not isinstance(part, bool)


def _bounds(part: Any, extent: int) -> tuple[int, int, int]:
    if not isinstance(part, slice):
        place = int(part) % extent
        return (place, place + 1, 1)
    bounds = [None if bound is None else int(bound) for bound in (part.start, part.stop, part.step)]
    return slice(*bounds).indices(extent)
