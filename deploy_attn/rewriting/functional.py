"""A network without writes in place: what it writes is followed, and computed as values.

Exporters follow a write to a whole tensor, or to one slice of it. A write
through another view (`view`, `chunk`, `permute`) is lost to whoever reads the
memory under another name. Under `Writes` every tensor that shares memory is
remembered with the views that made it. A write gives the memory another
value, and whoever reads afterwards takes the same views of that value.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy_attn.export.arguments import tensors_in, with_tensors
from deploy_attn.rewriting.calls import Frame, users_line
from deploy_attn.rewriting.layers import is_of_torch
from deploy_attn.rewriting.memory import (
    NotFollowed,
    Place,
    gathered,
    in_owner,
    order_matters,
    read_in_order,
    share_memory,
    shared,
    untraced,
    written,
)

if TYPE_CHECKING:
    from torch import Tensor

_OPERATORS = frozenset(
    {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__"}
    | {"__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__", "__setitem__"}
)
_NO_WRITES = frozenset({"requires_grad_", "detach_", "share_memory_", "rename_"})
_OTHER_SHAPE = frozenset(
    {"squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_", "resize_", "resize_as_", "set_"}
)
_METADATA = frozenset(
    {"shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_leaf", "is_cuda", "is_mkldnn", "is_quantized"}
    | {"size", "dim", "stride", "numel", "nelement", "storage_offset", "data_ptr", "get_device", "element_size"}
    | {"ndimension", "is_contiguous", "is_floating_point", "is_complex", "is_tensor", "__len__", "untyped_storage"}
)
_SLICES = frozenset({"__getitem__", "select", "narrow"})


@dataclass(frozen=True, eq=False)
class _Step:
    """One view of a tensor; `again` takes the same of another value."""

    again: Callable[[Tensor], Tensor]
    slices: bool


@dataclass(frozen=True, eq=False)
class Write:
    """One write: the views that lead to it, the innermost call, the call whose input it changes, and the line."""

    steps: tuple[_Step, ...]
    frame: Frame | None
    victim: Frame | None
    line: str


class Lost(NamedTuple):
    """A write that an exporter loses; `outside` where it is missed after the call whose input it changes."""

    write: Write
    outside: bool


@dataclass(eq=False)
class _Memory:
    """What tensors share: its value, laid out as the tensor that owns it, where that lies, and the writes so far."""

    value: Tensor
    owner: Place
    writes: list[Write] = field(default_factory=list)


@dataclass(eq=False)
class _View:
    """A tensor in its memory.

    `value` is what it holds after the first `current` writes, None for the
    tensor itself; the first `checked` writes were looked at for `lost`.
    """

    memory: _Memory
    place: Place
    steps: tuple[_Step, ...]
    current: int
    checked: int
    value: Tensor | None = None


@dataclass(frozen=True)
class _Call:
    """A function with its arguments, and the result of it that is meant."""

    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    index: int

    def again(self, source: Tensor) -> Callable[[Tensor], Tensor]:
        """The same for another value in the place of `source`."""

        def viewed(value: Tensor) -> Tensor:
            args, kwargs = with_tensors(
                (self.args, dict(self.kwargs)), lambda tensor: value if tensor is source else tensor
            )
            return list(tensors_in(self.function(*args, **kwargs)))[self.index]

        return viewed


class Writes:
    """The memory of one run of a network.

    Args:
        semantics: what a copy between overlapping places means: `shift` reads
            its whole source before it writes, `smear` goes element by element.
        frames: the calls that run, kept by `calls_of`; None where nobody asks for `lost`.

    Attributes:
        lost: the writes that an exporter loses, in the order in which they are missed.
        unordered: an operation that is no copy reads what it overwrites; it is computed as `shift` says.
    """

    def __init__(self, semantics: str, frames: Sequence[Frame] | None = None) -> None:
        from torch.utils.weak import WeakTensorKeyDictionary

        self.semantics = semantics
        self.frames = frames
        self.lost: list[Lost] = []
        self.unordered = False
        self._views: Any = WeakTensorKeyDictionary()

    def followed(self) -> AbstractContextManager[object]:
        """While it is entered, every function of torch goes through `call`."""
        from torch.overrides import TorchFunctionMode

        call = self.call

        class Following(TorchFunctionMode):
            writes = self

            def __torch_function__(self, function: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
                return call(function, args, kwargs or {})

        return Following()

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What the function returns for the present values; what it would write becomes a value.

        Raises:
            NotFollowed: it writes in a way that cannot be followed.
        """
        name = getattr(function, "__name__", "")
        if (getattr(function.__self__, "__name__", "") if name == "__get__" else name) in _METADATA:
            return function(*args, **kwargs)
        if name == "__setitem__" and _is_basic(args[1]):
            return self._set(*args)
        if name == "copy_":
            return self._copy(args[0], args[1] if len(args) > 1 else kwargs["src"])
        targets = _targets(function, name, args, kwargs)
        if name in _OTHER_SHAPE or name == "__set__":
            if any(tensor in self._views for tensor in tensors_in((args, dict(kwargs)))):
                raise NotFollowed(f"{name} changes what a tensor that shares memory is")
            return function(*args, **kwargs)
        return self._change(function, targets, args, kwargs) if targets else self._read(function, args, kwargs)

    def value_of(self, tensor: Tensor) -> Tensor:
        """What a tensor holds after all writes."""
        view: _View | None = self._views.get(tensor)
        if view is None:
            return tensor
        writes = view.memory.writes
        if view.current < len(writes):
            self._check(view)
            value = view.memory.value
            for step in view.steps:
                value = step.again(value)
            view.value, view.current = value, len(writes)
        return tensor if view.value is None else view.value

    def present(self, result: Any) -> Any:
        """A result with what its tensors hold after all writes."""
        return _replaced(result, {id(tensor): self.value_of(tensor) for tensor in tensors_in(result)})

    def _check(self, view: _View) -> None:
        """Notes the writes that an exporter does not connect with this tensor."""
        depth = len(view.steps)
        for write in view.memory.writes[view.checked :]:
            rest = write.steps[depth:]
            if write.steps[:depth] != view.steps or len(rest) > 1 or not all(step.slices for step in rest):
                self.lost.append(Lost(write, write.victim is not None and not write.victim.runs))
        view.checked = len(view.memory.writes)

    def _read(self, function: Any, args: Any, kwargs: Any) -> Any:
        given = list(tensors_in((args, dict(kwargs))))
        present = {id(tensor): self.value_of(tensor) for tensor in given}
        if any(present[id(tensor)] is not tensor for tensor in given):
            args, kwargs = with_tensors((args, dict(kwargs)), lambda tensor: present[id(tensor)])
        result = function(*args, **kwargs)
        originals = {id(present[id(tensor)]): tensor for tensor in given}
        for index, tensor in enumerate(tensors_in(result)):
            if id(tensor) not in originals:
                self._remember(tensor, given, present, _Call(function, args, kwargs, index))
        return _replaced(result, originals)

    def _remember(self, tensor: Tensor, given: list[Tensor], present: dict[int, Tensor], call: _Call) -> None:
        """A result that shares memory with an argument is a view of it."""
        source = next((source for source in given if share_memory(present[id(source)], tensor)), None)
        if source is None:
            return
        view, value = self._view(source), present[id(source)]
        if not share_memory(view.memory.value, tensor):
            raise NotFollowed("a view of a written tensor became a copy")
        with untraced():
            place = Place.of(tensor, int(view.memory.value.storage_offset()))
        step = _Step(call.again(value), getattr(call.function, "__name__", "") in _SLICES)
        seen = len(view.memory.writes)
        self._views[tensor] = _View(view.memory, place, (*view.steps, step), seen, seen)

    def _view(self, tensor: Tensor) -> _View:
        """A tensor of which nothing is known owns its memory."""
        found: _View | None = self._views.get(tensor)
        if found is None:
            with untraced():
                place = Place.of(tensor, int(tensor.storage_offset()))
            found = self._views[tensor] = _View(_Memory(tensor, place), place, (), 0, 0)
        return found

    def _set(self, tensor: Tensor, index: Any, value: Any) -> None:
        import torch

        target = self.call(torch.Tensor.__getitem__, (tensor, index), {})
        if not isinstance(value, torch.Tensor):
            value = torch.full_like(self.value_of(target), value)
        while value.dim() > target.dim():  # an assignment takes more axes of extent 1
            value = self.call(torch.Tensor.squeeze, (value, 0), {})
        self._copy(target, value)

    def _copy(self, target: Tensor, source: Tensor) -> Tensor:
        view, other = self._view(target), self._views.get(source)
        memory = view.memory
        if other is not None and other.memory is memory:
            place = _expanded(other.place, view.place.size)
            if place == view.place:
                return target
            if self.semantics == "smear":
                with untraced():
                    differs = order_matters(view.place, place)
                    index = in_owner(read_in_order(view.place, place), memory.owner)
                if differs:
                    self._write(target, gathered(memory.value, index))
                    return target
        value = self.value_of(source)
        with untraced():
            same_size = value.shape == view.place.size
        self._write(target, value if same_size else value.expand_as(self.value_of(target)))
        return target

    def _change(self, function: Any, targets: list[Tensor], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Runs a function that writes on copies of what it writes, or without its `out`."""
        free = {name: value for name, value in kwargs.items() if name != "out"}
        copies = {id(target): self.value_of(target).clone() for target in targets}
        others = [tensor for tensor in tensors_in((args, free)) if id(tensor) not in copies]
        self.unordered |= any(itertools.starmap(self._overlap, itertools.product(targets, others)))
        present = {**{id(tensor): self.value_of(tensor) for tensor in others}, **copies}
        args, free = with_tensors((args, free), lambda tensor: present[id(tensor)])
        result = function(*args, **free)
        out = kwargs.get("out")
        for target, value in zip(targets, copies.values() if out is None else tensors_in(result)):
            self._write(target, value)
        originals = {id(copies[id(target)]): target for target in targets}
        return _replaced(result, originals) if out is None else out

    def _overlap(self, target: Tensor, other: Tensor) -> bool:
        view, second = self._views.get(target), self._views.get(other)
        if view is None or second is None or view.memory is not second.memory:
            return False
        with untraced():
            return shared(view.place, second.place)

    def _write(self, target: Tensor, value: Tensor) -> None:
        view = self._view(target)
        memory = view.memory
        with untraced():
            fits = value.shape == view.place.size
        if target.dtype != memory.value.dtype or not fits:
            raise NotFollowed("memory is written as another type or size than it was made")
        if not view.place.elements:
            return
        value = value if value.dtype == target.dtype else value.to(target.dtype)
        memory.value = written(memory.value, memory.owner, view.place, value)
        if self.frames is None:
            memory.writes.append(Write(view.steps, None, None, ""))
        else:
            memory.writes.append(Write(view.steps, self.frames[-1], self._victim(memory), users_line()))

    def _victim(self, memory: _Memory) -> Frame | None:
        """The innermost call of a module that is not torch's own, of those that were given this memory."""
        for frame in reversed(self.frames or ()):
            views = (self._views.get(tensor) for tensor in frame.inputs)
            if not is_of_torch(frame.module) and any(view is not None and view.memory is memory for view in views):
                return frame
        return None


def _targets(function: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that a function writes to."""
    if kwargs.get("out") is not None:
        return list(tensors_in(kwargs["out"]))
    in_place = name in _OPERATORS
    in_place = in_place or (name.endswith("_") and not name.endswith("__") and name not in _NO_WRITES)
    if not in_place and isinstance(function, FunctionType):  # as F.relu(x, inplace=True)
        signature = inspect.signature(function)
        asked = "inplace" in signature.parameters and signature.bind(*args, **kwargs).arguments.get("inplace", False)
        in_place = bool(asked)
    return list(tensors_in((args or tuple(kwargs.values()))[:1])) if in_place else []


def _is_basic(index: Any) -> bool:
    """Whether an index takes a view."""
    parts = index if isinstance(index, tuple) else (index,)
    kinds = (int, slice, type(None), type(Ellipsis))
    return all(isinstance(part, kinds) and not isinstance(part, bool) for part in parts)


def _expanded(place: Place, size: tuple[int, ...]) -> Place:
    """Where a source lies once it has a target's size."""
    missing = len(size) - len(place.size)
    steps = (step if extent == wide else 0 for extent, wide, step in zip(place.size, size[missing:], place.stride))
    return Place(size, (*[0] * missing, *steps), place.offset)


def _replaced(result: Any, originals: Mapping[int, Tensor]) -> Any:
    """The result with other tensors for those of these identities; the same object where there are none."""
    if any(originals.get(id(tensor), tensor) is not tensor for tensor in tensors_in(result)):
        return with_tensors(result, lambda tensor: originals.get(id(tensor), tensor))
    return result
