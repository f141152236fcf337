"""Where a network makes Python values out of tensors that depend on its input: a trace freezes what follows from them.

`if x.sum() > 0` chooses a way, `float(x.max())` becomes a constant. Shapes are
no such values: outside a trace they are plain numbers.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import Arguments, tensors_in
from deploy_attn.export.source_lines import is_torchs_own, module_said, source_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_READERS = frozenset(
    (
        *("__array__", "__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__"),
        *("allclose", "equal", "is_nonzero", "item", "numpy", "tolist"),
    )
)


@dataclass(frozen=True)
class DataRead:
    """One source line that reads values of the input, in the module that runs it."""

    place: str
    code: str
    path: str
    class_name: str

    @property
    def text(self) -> str:
        where = module_said(self.path, self.class_name) if self.class_name else "the network"
        return f"{self.place} in {where}: `{self.code}`"


def data_reads(network: nn.Module, arguments: Arguments) -> tuple[DataRead, ...]:
    """Every place of a network's code that reads what follows from the values of its input, by one run.

    What torch's own layers read is left out, and so is what does not depend on
    the input. What forward raises goes through.
    """
    fresh = arguments.mapped(lambda x: x.clone())
    found: dict[DataRead, None] = {}
    paths = {id(module): path for path, module in network.named_modules()}
    with _watch(fresh.tensors, paths, found):
        network(*fresh.positional, **fresh.named)
    return tuple(found)


def _watch(
    inputs: list[Tensor], paths: dict[int, str], found: dict[DataRead, None]
) -> torch.overrides.TorchFunctionMode:
    from torch.overrides import TorchFunctionMode
    from torch.utils.weak import WeakIdKeyDictionary

    class Watch(TorchFunctionMode):
        """Knows which tensors were computed from the input, and notes where one is read."""

        def __init__(self) -> None:
            super().__init__()
            self._computed = WeakIdKeyDictionary()
            self._note(inputs)

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            given = (args, kwargs or {})
            if any(tensor in self._computed for tensor in tensors_in(given)):
                name = getattr(function, "__name__", "")
                if name in _READERS:
                    read = _read_at(sys._getframe(1), paths)
                    found.update({} if read is None else {read: None})
                self._note(tensors_in(args[:1] if name == "__setitem__" else result))
            return result

        def _note(self, tensors: Any) -> None:
            for tensor in tensors:
                self._computed[tensor] = None

    return Watch()


def _read_at(frame: FrameType, paths: dict[int, str]) -> DataRead | None:
    """The line that reads, if it is not torch's; its module is the nearest `self` that is one."""
    from torch import nn

    frames = list(_outwards(frame))
    file, line = frames[0].f_code.co_filename, frames[0].f_lineno
    if is_torchs_own(file):
        return None
    owners = (outer.f_locals.get("self") for outer in frames)
    owner = next((owner for owner in owners if isinstance(owner, nn.Module)), None)
    code = linecache.getline(file, line).strip()
    name = "" if owner is None else type(owner).__name__
    return DataRead(source_line(file, line), code, paths.get(id(owner), ""), name)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
