"""Finds writes in place that eager mode, gradients and exporters read in different ways."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy_attn.export.arguments import Arguments, tensors_in, with_tensors
from deploy_attn.jetson.errors import BadRequest, first_line
from deploy_attn.jetson.metrics import finite_or_none
from deploy_attn.rewriting.calls import calls_of
from deploy_attn.rewriting.evidence import qualified_name
from deploy_attn.rewriting.functional import Lost, Writes
from deploy_attn.rewriting.memory import NotFollowed
from deploy_attn.rewriting.watch import Event, Watch

if TYPE_CHECKING:
    from torch import Tensor, nn

OVERLAPS = "overlapping copy"
WRITES_INPUT = "writes into its input"
WRITES_VIEW = "writes through a view"
BATCH_SOFTMAX = "softmax over the batch"
_NEAR = 1e-6  # a network may be given in single precision

_TEXTS: Mapping[tuple[str, bool], str] = MappingProxyType(
    {
        (OVERLAPS, True): "copies between overlapping places of one memory: eager mode goes element by element, "
        "gradients and exports take the source as it was before. They differ by {}, so training and export disagree:",
        (OVERLAPS, False): "copies between overlapping places of one memory. One thread in eager mode gives what "
        "exports give, several may not; it is computed without overlap:",
        (WRITES_INPUT, True): "writes into its input through a view, and the network reads that input again. Eager "
        "mode and training see what was written, as smear does; a plain export does not. They differ by {}:",
        (WRITES_VIEW, False): "writes through a view, which a plain export loses; it is computed without writing:",
        (BATCH_SOFTMAX, False): "takes a softmax without `dim`, and of three axes that is the first, the batch. What "
        "an item gives depends on its neighbours, by {}; alone it gets 1 everywhere. Give `dim` unless that is meant:",
    }
)


@dataclass(frozen=True)
class AliasingFinding:
    """A module whose result depends on who reads its code.

    Attributes:
        path: where it stands; the root is "".
        class_name: the user's own.
        kind: one of the constants of this file.
        lines: where it is written, `file:number: text`.
        difference: how far the two meanings are apart at the module, RMS, relative.
        network_difference: the same at the network's outputs.
        asks: a meaning must be chosen before anything can be compared.
        smear_error: how far eager mode is from `smear` at the network's outputs; not a number where there is no smear.
    """

    path: str
    class_name: str
    kind: str
    lines: tuple[str, ...]
    difference: float
    network_difference: float
    asks: bool
    smear_error: float = 0.0

    @property
    def writes(self) -> bool:
        """Whether it is about a write in place; a softmax is none."""
        return self.kind != BATCH_SOFTMAX

    @property
    def message(self) -> str:
        where = f"{self.path or 'The network itself'} ({self.class_name})"
        apart = (
            f"{self.difference:.2g} there and {self.network_difference:.2g} at the network's outputs (RMS, relative)"
        )
        lines = "".join(f"\n  {line}" for line in self.lines)
        return f"{where} {_TEXTS[self.kind, self.asks].format(apart)}{lines}{self._limits}"

    @property
    def _limits(self) -> str:
        """What of eager mode no meaning reproduces."""
        if math.isnan(self.smear_error):
            return "\n  There is no smear: what is read while it is overwritten is more than a copy."
        if self.smear_error <= _NEAR:
            return ""
        return (
            "\n  Here one thread takes several elements at once: at the network's outputs it is "
            f"{self.smear_error:.2g} away from smear, and another CPU may give something else."
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "class": self.class_name,
            "kind": self.kind,
            "lines": list(self.lines),
            "difference": finite_or_none(self.difference),
            "network_difference": finite_or_none(self.network_difference),
            "asks": self.asks,
            "smear_error": finite_or_none(self.smear_error),
            "message": self.message,
        }


def find_aliasing(network: nn.Module, arguments: Arguments) -> tuple[AliasingFinding, ...]:
    """What in a network has several meanings, as this call runs it; nothing where the network itself fails.

    One watched run says whether anything is written of which there was a view.
    Only then eager mode, on one thread, is compared with the same network
    computed without writes in place.

    Raises:
        BadRequest: an overlapping copy was seen that cannot be computed without writing in place.
    """
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever runs the network next lets them through
        with calls_of(network) as frames:
            watch = Watch(frames)
            try:
                with watch.watching():
                    outputs = list(tensors_in(arguments.call(network)))
            except Exception:  # a network may raise anything; whoever runs it next says so
                return ()
        trial = _Trial(network, arguments, outputs)
        written = _writes_found(trial, watch.overlaps) if watch.suspects else []
        return (*written, *_softmaxes_found(trial, watch.softmaxes))


class _Trial(NamedTuple):
    """A network, what it is called with, and what it returns if every source is read before it is overwritten."""

    network: nn.Module
    arguments: Arguments
    outputs: list[Tensor]


class _Place(NamedTuple):
    """The lines of one module at which something was seen."""

    path: str
    class_name: str
    lines: tuple[str, ...]


def _places(events: Iterable[Event]) -> list[_Place]:
    lines: dict[tuple[str, str], dict[str, None]] = {}
    for frame, line in events:
        lines.setdefault((frame.path, qualified_name(frame.module)), {})[line] = None
    return [_Place(*where, tuple(found)) for where, found in lines.items()]


def _writes_found(trial: _Trial, overlaps: list[Event]) -> list[AliasingFinding]:
    try:
        lost = _lost(trial)
    except Exception as error:  # a network may raise anything
        if not overlaps:
            return []
        place = _places(overlaps)[0]
        raise BadRequest(
            f"{place.path or 'The network itself'} ({place.class_name}) copies between overlapping places of one "
            f"memory, and no other way to compute the same was found: {first_line(error)}. Copy from a clone, as in "
            "x[1:] = x[:-1].clone():" + "".join(f"\n  {line}" for line in place.lines)
        ) from error
    outside = [Event(write.victim, write.line) for write, late in lost if late and write.victim]
    inside = [Event(write.frame, write.line) for write, _ in lost if write.frame]
    found = [*_overlaps_found(trial, _places(overlaps)), *_inputs_found(trial, _places(outside))]
    known = {finding.path for finding in found}
    views = [place for place in _places([*outside, *inside]) if place.path not in known]
    return found + [AliasingFinding(*place[:2], WRITES_VIEW, place.lines, 0.0, 0.0, False) for place in views]


def _lost(trial: _Trial) -> list[Lost]:
    """The writes that an exporter loses.

    Raises:
        NotFollowed: the network without writes in place does not give the same.
    """
    with calls_of(trial.network) as frames:
        writes = Writes("shift", frames)
        with writes.followed():
            result = trial.arguments.call(trial.network)
        followed = list(tensors_in(writes.present(result)))
    apart = _distance(followed, trial.outputs)
    if not apart <= _NEAR:
        raise NotFollowed(f"computed without writing in place it differs by {apart:.1e}")
    return writes.lost


def _overlaps_found(trial: _Trial, places: list[_Place]) -> list[AliasingFinding]:
    if not places:
        return []
    paths = [place.path for place in places]
    shift = _recorded(trial, paths, "shift")
    try:
        eager = _recorded(trial, paths, None)
    except RuntimeError:  # torch refuses some overlaps by itself, and the network does not run
        return []
    smear = _recorded(trial, paths, "smear")
    smear_error = _distance(eager.outputs, smear.outputs)
    if smear.unordered and smear_error > _NEAR:
        smear, smear_error = eager, math.nan
    whole = _distance(eager.outputs, shift.outputs)
    found = []
    for place in places:
        apart = [_distance(other.result(place.path), shift.result(place.path)) for other in (eager, smear)]
        asks = max(apart) > _NEAR
        found.append(AliasingFinding(*place[:2], OVERLAPS, place.lines, apart[0], whole, asks, smear_error))
    return found


def _inputs_found(trial: _Trial, places: list[_Place]) -> list[AliasingFinding]:
    """The modules whose writes into their input change what the network returns."""
    found = []
    for place in places:
        seen = _recorded(trial, [place.path], "shift")
        with _leaving_inputs(trial.network.get_submodule(place.path)):
            hidden = _recorded(trial, [place.path], "shift")
        whole = _distance(hidden.outputs, seen.outputs)
        if not whole <= _NEAR:
            apart = _distance(seen.parts[place.path].left, seen.parts[place.path].taken)
            found.append(AliasingFinding(*place[:2], WRITES_INPUT, place.lines, apart, whole, True))
    return found


def _softmaxes_found(trial: _Trial, events: list[Event]) -> list[AliasingFinding]:
    """The softmaxes over the batch, where an item's result depends on its neighbours."""
    import torch

    def with_neighbours(x: Tensor) -> Tensor:
        return torch.cat([x, 1 - 2 * x if x.is_floating_point() else x])

    if not events:
        return []
    try:
        together = tensors_in(trial.arguments.mapped(with_neighbours).call(trial.network))
        apart = _distance([both[: len(alone)] for both, alone in zip(together, trial.outputs)], trial.outputs)
    except Exception:  # it may take no larger batch
        apart = math.nan
    if apart <= _NEAR:
        return []
    return [AliasingFinding(*place[:2], BATCH_SOFTMAX, place.lines, apart, apart, False) for place in _places(events)]


class _Part(NamedTuple):
    """What a module took at its first call, and what it returned and left in its inputs."""

    taken: list[Tensor]
    given: list[Tensor]
    left: list[Tensor]


class _Record(NamedTuple):
    """What a run returned, what some modules did in it, by path, and whether `smear` says nothing of a part of it."""

    outputs: list[Tensor]
    parts: Mapping[str, _Part]
    unordered: bool = False

    def result(self, path: str) -> list[Tensor]:
        return [*self.parts[path].given, *self.parts[path].left]


def _recorded(trial: _Trial, paths: Sequence[str], semantics: str | None) -> _Record:
    """A run under one semantics; of None, in eager mode on one thread."""
    parts = {path: _Part([], [], []) for path in paths}
    with contextlib.ExitStack() as stack:
        for path, part in parts.items():
            stack.enter_context(_noting(trial.network.get_submodule(path), part))
        if semantics is None:
            stack.enter_context(_one_thread())
            return _Record(list(tensors_in(trial.arguments.call(trial.network))), parts)
        writes = Writes(semantics)
        with writes.followed():
            result = trial.arguments.call(trial.network)
        return _Record(list(tensors_in(writes.present(result))), parts, writes.unordered)


@contextlib.contextmanager
def _noting(module: nn.Module, part: _Part) -> Iterator[None]:
    def before(_: nn.Module, positional: Any, named: Any) -> None:
        if not part.given:
            part.taken[:] = [tensor.clone() for tensor in tensors_in((positional, named))]

    def after(_: nn.Module, positional: Any, named: Any, result: Any) -> None:
        if not part.given:
            part.given[:] = [tensor.clone() for tensor in tensors_in(result)]
            part.left[:] = [tensor.clone() for tensor in tensors_in((positional, named))]

    hooks = (
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _leaving_inputs(module: nn.Module) -> Iterator[None]:
    """While it is entered, the module works on copies of its inputs."""

    def copied(_: nn.Module, positional: Any, named: Any) -> Any:
        return with_tensors((positional, named), lambda tensor: tensor.clone())

    hook = module.register_forward_pre_hook(copied, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _distance(values: Iterable[Tensor], wanted: Iterable[Tensor]) -> float:
    """RMS of the difference relative to RMS of what is wanted, over all tensors; infinite where sizes differ."""
    error = norm = 0.0
    for value, other in zip(values, wanted):
        if value.shape != other.shape:
            return math.inf
        error += float((value.double() - other.double()).square().sum())
        norm += float(other.double().square().sum())
    return math.sqrt(error / norm) if norm else math.sqrt(error)
