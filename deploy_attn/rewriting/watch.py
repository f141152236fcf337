"""One run of a network, watched for operations that read what they overwrite."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy_attn.export.arguments import tensors_in, with_tensors
from deploy_attn.rewriting.calls import Frame, users_line
from deploy_attn.rewriting.memory import Place, order_matters, share_memory, shared

if TYPE_CHECKING:
    from torch import Tensor


class Event(NamedTuple):
    """Where something was seen."""

    frame: Frame
    line: str


class Watch:
    """Sees every operation of a run. A source that the same operation overwrites is read whole before.

    Attributes:
        overlaps: where an operation read what it overwrote.
        suspects: something was written of which there had been a view.
        softmaxes: where nobody said along which axis, and torch takes the first of three.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.overlaps: list[Event] = []
        self.softmaxes: list[Event] = []
        self.suspects = False
        self._frames = frames
        self._viewed: dict[int, Any] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        from torch.overrides import TorchFunctionMode
        from torch.utils._python_dispatch import TorchDispatchMode

        watch = self

        class Operations(TorchDispatchMode):
            @classmethod
            def _should_skip_dynamo(cls) -> bool:
                return False  # or torch imports its compiler here, which takes seconds

            def __torch_dispatch__(self, function: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
                return watch._operation(function, args, kwargs or {})

        class Functions(TorchFunctionMode):
            def __torch_function__(self, function: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
                if _has_no_axis(function, args, kwargs or {}):
                    watch.softmaxes.append(watch._event())
                return function(*args, **(kwargs or {}))

        with Operations(), Functions():  # type: ignore[no-untyped-call]  # torch does not annotate it
            yield

    def _event(self) -> Event:
        return Event(self._frames[-1], users_line())

    def _operation(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        schema = function._schema
        places = {item.name: value for item, value in zip(schema.arguments, args)}
        given = {**places, **kwargs}
        writes = [item.name for item in schema.arguments if item.alias_info is not None and item.alias_info.is_write]
        targets = list(tensors_in([given.get(name) for name in writes]))
        if targets:
            self.suspects = self.suspects or any(map(self._had_views, targets))
            args, kwargs = self._apart(function, targets, args, kwargs)
        result = function(*args, **kwargs)
        if any(item.alias_info is not None and not item.alias_info.is_write for item in schema.returns):
            for view in tensors_in(result):
                self._note_view(view)
        return result

    def _apart(self, function: Any, targets: list[Tensor], args: Any, kwargs: dict[str, Any]) -> Any:
        """The arguments with copies of what is read and overwritten."""
        import torch

        copies = function is torch.ops.aten.copy_.default
        others = {id(tensor): tensor for tensor in tensors_in((args, kwargs))}
        for target in targets:
            others.pop(id(target), None)
        read = {
            key for key, tensor in others.items() if any(_overwritten(tensor, target, copies) for target in targets)
        }
        if not read:
            return args, kwargs
        self.suspects = True
        self.overlaps.append(self._event())
        return with_tensors((args, kwargs), lambda tensor: tensor.clone() if id(tensor) in read else tensor)

    def _note_view(self, view: Tensor) -> None:
        from torch.multiprocessing.reductions import StorageWeakRef

        storage = view.untyped_storage()
        self._viewed[storage._cdata] = StorageWeakRef(storage)

    def _had_views(self, tensor: Tensor) -> bool:
        found = self._viewed.get(tensor.untyped_storage()._cdata)
        return found is not None and not found.expired()


def _overwritten(source: Tensor, target: Tensor, copies: bool) -> bool:
    """Whether an operation on this target changes what it reads of this source before it has read it."""

    if not share_memory(target, source):
        return False
    if copies:
        return order_matters(Place.of(target), Place.of(source.expand_as(target)))
    return shared(Place.of(target), Place.of(source))


def _has_no_axis(function: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    from torch.nn import functional

    if function not in (functional.softmax, functional.log_softmax, functional.softmin):
        return False
    given = inspect.signature(function).bind(*args, **kwargs).arguments
    return given.get("dim") is None and given["input"].dim() == 3
