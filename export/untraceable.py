"""What a network does that no graph keeps: it looks at values of its input, or computes under autocast or torch.jit."""

from __future__ import annotations

import contextlib
import linecache
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import Arguments, tensors_in
from deploy_attn.export.data_reads import follows, what_is_read
from deploy_attn.export.source_lines import is_torchs_own, module_said, source_line
from deploy_attn.export.telling import only_tells
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_MOST_LINES = 8
_IN_THE_GRAPH = (
    "A graph would go on as for the first input, whatever it is given. Keep values in tensors: torch.where(condition, "
    "a, b) for a choice, arithmetic without .item(), float() or int() for a number, a mask (x * mask, masked_fill) for "
    "a selection; or fix the number, of steps as well, in __init__."
)
_WITHOUT_AUTOCAST = "Take torch.autocast out of the network: --fp16 decides which layers run in FP16, and proves it."
_WITHOUT_JIT = "Build the network with the module that torch.jit was given."
_HANDING_ON = ("_jit_internal.py", "_tensor.py", "functional.py", "overrides.py")  # between a caller and what it called
_WITHOUT_COMPILE = "Take torch.compile off the functions of the network: an export does not need it."
_COMPILER = re.compile(r"[/\\]torch[/\\](_higher_order_ops|_dynamo)[/\\]")
_SCRIPT_LINES = (re.compile(r"prim::(?:If|Loop)\(.*# (.+):(\d+):\d+"), re.compile(r"# (.+):(\d+):\d+"))


@dataclass(frozen=True)
class Untraceable:
    """One line of a network that no graph keeps, in the module that runs it.

    `place` and `code` are empty where no source is known; `only_tells` where
    the line can only raise, warn or print, so that a graph may leave it out.
    """

    place: str
    code: str
    module: str
    what: str
    remedy: str
    only_tells: bool = False

    @property
    def text(self) -> str:
        return (
            f"{self.place} in {self.module}: `{self.code}` {self.what}" if self.place else f"{self.module} {self.what}"
        )


def check_traceable(found: Iterable[Untraceable]) -> tuple[str, ...]:
    """What a graph leaves out of what was found, as notes.

    Raises:
        BadRequest: something else was found.
    """
    found = list(found)
    lost = [one for one in found if not one.only_tells]
    if lost:
        lines = [f"  {one.text}" for one in lost[:_MOST_LINES]]
        lines += [f"  and {len(lost) - _MOST_LINES} more lines"] if len(lost) > _MOST_LINES else []
        remedies = dict.fromkeys(one.remedy for one in lost)
        raise BadRequest("\n".join(["The network does what no graph keeps:", *lines, *remedies]))
    return tuple(f"{one.text}. It can only raise, warn or print; the graph leaves it out." for one in found)


def untraceable(network: nn.Module, arguments: Arguments) -> tuple[Untraceable, ...]:
    """Every place of a network's code that no graph keeps, by one run.

    What torch's own layers read is left out, and so is what does not depend on
    the input. What forward raises goes through.
    """
    compiled = tuple(_compiled_parts(network))
    if compiled:
        return compiled
    fresh = arguments.mapped(lambda x: x.clone())
    lines = _Lines({id(module): module_said(path, type(module).__name__) for path, module in network.named_modules()})
    watch = _Watch(fresh.tensors, lines)
    linecache.checkcache()  # a file may have changed since its lines were last asked for
    with warnings.catch_warnings(), _compilers_found(lines, watch.found), watch.mode():
        warnings.simplefilter("ignore")  # what the network itself warns of, it says whenever it runs
        network(*fresh.positional, **fresh.named)
    return tuple(watch.found)


def _compiled_parts(network: nn.Module) -> Iterator[Untraceable]:
    """The outermost modules that torch.jit compiled, each with the first line that chooses, or its first line."""
    from torch import jit

    inside: set[int] = set()
    for path, module in network.named_modules():
        if isinstance(module, jit.ScriptModule) and id(module) not in inside:
            inside.update(map(id, module.modules()))
            graph = str(module.inlined_graph) if hasattr(module, "inlined_graph") else ""
            matches = (found for pattern in _SCRIPT_LINES for found in pattern.finditer(graph))
            file, line = next(((one[1], int(one[2])) for one in matches if not is_torchs_own(one[1])), ("", 0))
            place = source_line(file, line) if file else ""
            name = getattr(module, "original_name", type(module).__name__)
            code = linecache.getline(file, line).strip()
            yield Untraceable(place, code, module_said(path, name), "is compiled by torch.jit", _WITHOUT_JIT)


class _Lines:
    """Says where in a network's code a frame is."""

    def __init__(self, modules: dict[int, str]) -> None:
        self._modules = modules

    def at(self, frames: Sequence[FrameType], what: str, remedy: str, only_tells: bool = False) -> Untraceable:
        """The first frame that is not torch's; its module is the nearest `self` that is one of the network's."""
        file, line = next(((f.f_code.co_filename, f.f_lineno) for f in frames if not _is_torchs(f)), ("", 0))
        owners = (id(frame.f_locals.get("self")) for frame in frames)
        module = next((self._modules[owner] for owner in owners if owner in self._modules), "the network")
        code = linecache.getline(file, line).strip()
        return Untraceable(source_line(file, line), code, module, what, remedy, only_tells)


@contextlib.contextmanager
def _compilers_found(lines: _Lines, found: dict[Untraceable, None]) -> Iterator[None]:
    """Notes the line that calls torch.cond or a compiled function; where calls are watched, these may end the run."""
    try:
        yield
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        parts = [_COMPILER.search(frame.f_code.co_filename) for frame in frames]
        first, part = next(((place, part) for place, part in enumerate(parts) if part), (0, None))
        if part is None:
            raise
        chosen = f"chooses by values, with torch's {frames[first].f_code.co_name}", _IN_THE_GRAPH
        compiled = "calls what torch.compile compiled", _WITHOUT_COMPILE
        found[lines.at(frames[first::-1], *(compiled if part[1] == "_dynamo" else chosen))] = None


class _Watch:
    """Knows which tensors of a run follow from the values of its input, and notes where one is read."""

    def __init__(self, inputs: Iterable[Tensor], lines: _Lines) -> None:
        from torch.utils.weak import WeakIdKeyDictionary

        self.found: dict[Untraceable, None] = {}
        self._lines = lines
        self._computed = WeakIdKeyDictionary()
        self._read: set[tuple[str, int, str]] = set()
        self._note(inputs)

    def mode(self) -> torch.overrides.TorchFunctionMode:
        from torch.overrides import TorchFunctionMode

        called = self._called

        class Mode(TorchFunctionMode):
            def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                return called(function, args, kwargs or {}, sys._getframe(1))

        return Mode()

    def _called(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], frame: FrameType) -> Any:
        import torch

        name = getattr(function, "__name__", "")
        if torch.is_autocast_enabled("cpu"):
            what = f"runs under torch.autocast({torch.get_autocast_dtype('cpu')})"
            self.found[self._lines.at(list(_users(frame)), what, _WITHOUT_AUTOCAST)] = None
        what_read = what_is_read(name, args, kwargs, self._depends)
        if what_read is not None:
            self._note_read(what_read, list(_users(frame)))
        result = function(*args, **kwargs)
        if follows(name, args, kwargs, self._depends):
            self._note(tensors_in(args[:1] if name == "__setitem__" else result))
        return result

    def _depends(self, tensor: Tensor) -> bool:
        return tensor in self._computed or (tensor._base is not None and tensor._base in self._computed)

    def _note(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            self._computed[tensor] = None
            if tensor._base is not None:
                self._computed[tensor._base] = None

    def _note_read(self, what: str, frames: list[FrameType]) -> None:
        key = (frames[0].f_code.co_filename, frames[0].f_lineno, what)
        if _is_torchs(frames[0]) or key in self._read:
            return
        self._read.add(key)
        tells = only_tells([frame for frame in frames if not _is_torchs(frame)])
        self.found[self._lines.at(frames, what, _IN_THE_GRAPH, tells)] = None


def _users(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of a call, from the one that calls the function out to the one that runs the network."""
    import torch

    files = [os.path.join(os.path.dirname(torch.__file__), name) for name in _HANDING_ON]
    while frame is not None and frame.f_code.co_filename in files:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_filename != __file__:
        yield frame
        frame = frame.f_back


def _is_torchs(frame: FrameType) -> bool:
    return is_torchs_own(frame.f_code.co_filename)
