"""Which modules of a network run at a moment, and which line of their code."""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import tensors_in

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(eq=False)
class Frame:
    """One call of a module; it runs until it returns."""

    path: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    runs: bool = True


@contextlib.contextmanager
def calls_of(network: nn.Module) -> Iterator[list[Frame]]:
    """The calls that run, outer ones first, while the network is called; the first is the network's own."""
    from torch import jit

    frames = [Frame("", network, ())]

    def entered(path: str, module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        frames.append(Frame(path, module, tuple(tensors_in((positional, named)))))

    def left(module: nn.Module, positional: object, result: object) -> None:
        frames.pop().runs = False

    hooks = []
    for path, module in network.named_modules():
        if module is not network and not isinstance(module, jit.ScriptModule):
            hooks.append(module.register_forward_pre_hook(functools.partial(entered, path), with_kwargs=True))
            hooks.append(module.register_forward_hook(left))
    try:
        yield frames
    finally:
        for hook in hooks:
            hook.remove()


def users_line() -> str:
    """The innermost line that runs and is neither torch's nor this package's, as `file:number: text`."""
    import torch

    own = tuple(os.path.dirname(path) + os.sep for path in (torch.__file__, __file__))
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(own):
        frame = frame.f_back
    name, number = frame.f_code.co_filename, frame.f_lineno
    return f"{os.path.basename(name)}:{number}: {linecache.getline(name, number).strip()}".rstrip(": ")
