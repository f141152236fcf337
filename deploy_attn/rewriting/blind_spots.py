"""What a proof by examples cannot see: a module that decides by values, keeps a state, or draws random numbers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import Arguments, tensors_in
from deploy_attn.rewriting.calls import users_line
from deploy_attn.rewriting.memory import share_memory

if TYPE_CHECKING:
    from torch import Tensor, nn

_DECISIONS = frozenset({"_local_scalar_dense", "equal", "nonzero", "masked_select"})
_CLAMPS = ("clamp", "clamp_min", "clamp_max", "hardtanh", "hardsigmoid", "hardswish")
_LIMITS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(_CLAMPS, "clamp")
    | {
        name: name
        for name in (
            *("where", "masked_fill", "nan_to_num", "threshold", "hardshrink", "softshrink", "heaviside", "bucketize"),
            *("minimum", "maximum", "fmin", "fmax", "round", "floor", "ceil", "trunc", "frac", "fmod", "remainder"),
            *("gt", "ge", "lt", "le", "eq", "ne", "isnan", "isinf", "isfinite", "searchsorted"),
        )
    }
)


def blind_spot(subject: nn.Module, form: nn.Module, call: Arguments) -> str | None:
    """Why trials that hold prove nothing of a module; None where they do.

    Each is run, with the arguments that the network gives it, and its
    operations are seen; the module twice, as what it keeps must not depend on
    how often it ran. A limit that its form has too is one that the trials met.
    """
    first = _seen(subject, call)
    kept = _kept(subject)
    again = _seen(subject, call)
    if again.reason is not None:
        return again.reason
    if not _same(kept, _kept(subject)):
        return "it keeps a state that every call changes, and a proof calls it a few times only"
    unexplained = next(iter(first.limits - _seen(form, call).limits), None)
    if unexplained is None:
        return None
    return f"its forward has a {unexplained}, whose limits a proof by examples could miss"


class _Operations:
    """What one run does: how often it applies which limit, and the first thing that no example can prove."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.limits: Counter[str] = Counter()
        self.reason: str | None = None
        self._inputs = inputs

    def note(self, function: Any, args: Any, kwargs: dict[str, Any]) -> None:
        import torch

        name = function._schema.name.removeprefix("aten::")
        reason = None
        if name in _DECISIONS:
            reason = f"its forward decides by a value ({users_line()}), and a proof by examples could miss another"
        elif torch.Tag.nondeterministic_seeded in function.tags and not _without_dropout(function, args, kwargs):
            reason = "it draws random numbers"
        elif self._writes_into_input(function, args, kwargs):
            reason = "it writes into its input, which a replacement would not"
        self.reason = self.reason or reason
        limit = _LIMITS.get(name.rstrip("_"))
        if limit is not None:
            self.limits[limit] += 1

    def _writes_into_input(self, function: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        arguments = function._schema.arguments
        given = {**{argument.name: value for argument, value in zip(arguments, args)}, **kwargs}
        written = [
            given.get(item.name) for item in arguments if item.alias_info is not None and item.alias_info.is_write
        ]
        return any(share_memory(tensor, own) for tensor in tensors_in(written) for own in self._inputs)


def _seen(module: nn.Module, call: Arguments) -> _Operations:
    """One run of a module on copies of its arguments."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    with torch.no_grad():
        own = call.mapped(lambda x: x.detach().clone())
        operations = _Operations(own.tensors)

        class Watched(TorchDispatchMode):
            @classmethod
            def _should_skip_dynamo(cls) -> bool:
                return False  # or torch imports its compiler here, which takes seconds

            def __torch_dispatch__(self, function: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
                operations.note(function, args, kwargs or {})
                return function(*args, **(kwargs or {}))

        with Watched():  # type: ignore[no-untyped-call]  # torch does not annotate it
            module(*own.positional, **own.named)
    return operations


def _kept(module: nn.Module) -> list[object]:
    """The attributes, weights and buffers of a module and its parts."""
    return [_copied(vars(part)) for part in module.modules()]


def _copied(value: object) -> object:
    """Numbers, words and copies of tensors, in lists and dicts as deep as they come; of other objects the type."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return [_copied(part) for part in value]
    return value if isinstance(value, (int, float, complex, str, bytes)) else type(value)


def _same(first: object, second: object) -> bool:
    import torch

    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(value, second[key]) for key, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and (first == second or first != first)


def _without_dropout(function: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Attention is tagged as random though its rate is 0, as in eval mode."""
    names = [argument.name for argument in function._schema.arguments]
    rate = {**dict(zip(names, args)), **kwargs}.get("dropout_p", 0.0 if "dropout_p" in names else None)
    return rate == 0
