"""Every function call of a running network, seen, and answered by an exact form where that was proven.

PyTorch hands each call of its functions, also those inside `torch.nn.functional`,
to the innermost `torch.overrides.TorchFunctionMode`; nothing is patched.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import with_tensors
from deploy_attn.export.functions.memory import shares_memory
from deploy_attn.export.functions.rule import Aim
from deploy_attn.export.functions.table import rules
from deploy_attn.export.functions.writes import Written

if TYPE_CHECKING:
    from deploy_attn.export.functions.finding import FunctionFinding

    Function = Callable[..., Any]
    Handler = Callable[[Function, tuple[Any, ...], dict[str, Any]], Any]

_BETWEEN = frozenset([__name__, "contextlib", "torch.overrides"])  # a caller and the function it called


def handled_by(handler: Handler) -> contextlib.AbstractContextManager[Any]:
    """A context in which `handler(function, args, kwargs)` returns each call's result, and sees no calls of its own."""
    from torch.overrides import TorchFunctionMode

    class _Handled(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.said: set[tuple[Any, ...]] = set()

        def __torch_function__(
            self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            with _warnings_of_the_caller(self.said):
                return handler(func, args, kwargs or {})

    return _Handled()


def exact_functions(findings: Iterable[FunctionFinding], aim: Aim) -> contextlib.AbstractContextManager[Any]:
    """A context in which a network, run or traced, computes the proven calls by their exact forms.

    Args:
        findings: from `prove_functions` of this network; a call that is not among them stays as it is.
        aim: that of the proof.
    """
    import torch

    proven = frozenset(finding.call for finding in findings if finding.replaced)
    if not proven:
        return contextlib.nullcontext()
    table, written = rules(), Written()

    def handler(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rule = table.get(function)
        call = None if rule is None else rule.call_of(args, kwargs)
        answer = None
        if rule is not None and call is not None:
            with _sizes_are_fixed():
                if rule.described(call) in proven:
                    answer = written.write(aim, *call.args) if rule.writes else rule.answer(aim, call)
        if rule is not None and rule.writes and answer is not None:
            args[0][...] = answer
            return None
        written.touched((args, kwargs))
        if answer is None:
            return function(*args, **kwargs)
        # What the network writes into the result must not reach what the function was called with.
        return with_tensors(answer, torch.clone) if shares_memory(answer, (args, kwargs)) else answer

    return handled_by(handler)


@contextlib.contextmanager
def _warnings_of_the_caller(said: set[tuple[Any, ...]]) -> Iterator[None]:
    """Has a function's warnings name the line that called it, as without a mode, and once; filters go by that."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if not caught:
        return
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    place = (frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__"))
    for warning in caught:
        key = (str(warning.message), warning.category, *place)
        if key not in said:
            said.add(key)
            warnings.warn_explicit(warning.message, warning.category, *place)


@contextlib.contextmanager
def _sizes_are_fixed() -> Iterator[None]:
    """A trace warns of each extent that becomes a number; a form that does so was proven for that extent."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield
