"""One run of a network, watched: which module's output is read by one other module and by nothing else."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import Arguments, tensors_in
from deploy_attn.export.functions.mode import handled_by

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Hop:
    """The output of `first` goes to `second` and nowhere else.

    Each is called once, and nothing else reads their weights. `fed` is a copy
    of what `first` was given, as `Asked.cut` cut it.
    """

    first: nn.Module
    second: nn.Module
    fed: Tensor


@dataclass(frozen=True)
class Dataflow:
    """What the network returned, and the hops that were asked about."""

    returned: Any
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class Asked:
    """Hops from which modules to which, and how to cut what the first are given."""

    firsts: Collection[nn.Module]
    seconds: Collection[nn.Module]
    cut: Callable[[nn.Module, Tensor], Tensor]


def dataflow(network: nn.Module, asked: Asked, example: Arguments) -> Dataflow:
    """Runs a network once. What its forward raises goes through."""
    import torch

    watch = _Watch(asked)
    with torch.inference_mode(), watch.hooked(), handled_by(watch.handle):
        returned = example.call(network)
    watch.read(returned, None)
    return Dataflow(returned, tuple(watch.hops()))


class _Watched:
    """A tensor that somebody may read, and who did: a second module, or None for anything else."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = weakref.ref(tensor)
        self.readers: list[nn.Module | None] = []


@dataclass(frozen=True)
class _Meeting:
    """A second module was given the output of a first one."""

    first: nn.Module
    second: nn.Module
    between: _Watched


class _Watch:
    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._watched: dict[int, _Watched] = {}
        self._makers: dict[_Watched, nn.Module] = {}
        self._fed: dict[nn.Module, Tensor] = {}
        self._calls: Counter[nn.Module] = Counter()
        self._meetings: list[_Meeting] = []
        self._running: list[nn.Module | None] = [None]
        self._harmless = _functions_of_shape()
        for module in (*asked.firsts, *asked.seconds):
            for value in _own_values(module):
                self._watched.setdefault(id(value), _Watched(value))

    def handle(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function not in self._harmless:
            self.read((args, kwargs), self._running[-1])
        return function(*args, **kwargs)

    def read(self, values: Any, reader: nn.Module | None) -> None:
        for x in tensors_in(values):
            watched = self._of(x)
            if watched is not None:
                watched.readers.append(reader)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        hooks = [first.register_forward_hook(self._made) for first in self._asked.firsts]
        for second in self._asked.seconds:
            hooks.append(second.register_forward_pre_hook(self._entered))
            hooks.append(second.register_forward_hook(self._left, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def hops(self) -> Iterator[Hop]:
        for meeting in self._meetings:
            first, second = meeting.first, meeting.second
            once = self._calls[first] == self._calls[second] == 1
            alone = all(reader is second for reader in meeting.between.readers)
            values = [*_own_values(first), *_own_values(second)]
            if once and alone and all(len(self._watched[id(value)].readers) <= 1 for value in values):
                yield Hop(first, second, self._fed[first])

    def _of(self, x: Tensor) -> _Watched | None:
        watched = self._watched.get(id(x))
        return watched if watched is not None and watched.tensor() is x else None

    def _made(self, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        import torch

        self._calls[module] += 1
        if given and isinstance(given[0], torch.Tensor) and isinstance(output, torch.Tensor):
            self._fed[module] = self._asked.cut(module, given[0]).clone()
            watched = self._watched[id(output)] = _Watched(output)
            self._makers[watched] = module

    def _entered(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        self._calls[module] += 1
        self._running.append(module)
        between = next((self._of(x) for x in tensors_in(given[:1])), None)
        if between is not None and between in self._makers:
            self._meetings.append(_Meeting(self._makers[between], module, between))

    def _left(self, *_: Any) -> None:
        self._running.pop()


def _own_values(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _functions_of_shape() -> frozenset[Any]:
    """Functions that look at a tensor's form, not at its values."""
    from torch import Tensor

    properties: tuple[Any, ...] = (
        Tensor.shape,
        Tensor.dtype,
        Tensor.device,
        Tensor.ndim,
        Tensor.layout,
        Tensor.is_cuda,
    )
    methods = (Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_contiguous, Tensor.is_floating_point)
    return frozenset([*(found.__get__ for found in properties), *methods])
