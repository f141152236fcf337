"""A catalogue's reference form with the weights of a module that has the same state under other names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deploy_attn.modules.base import ReferenceForm

_SAME_NAMES: Mapping[str, str] = MappingProxyType({})
_COUNTER = "num_batches_tracked"


def loaded(
    name: str, options: Mapping[str, object], module: nn.Module, names: Mapping[str, str] = _SAME_NAMES
) -> ReferenceForm | None:
    """The reference form of these options holding the module's own tensors and epsilons.

    Args:
        names: path in the reference -> path in the module, where they differ; the longest that fits counts.

    Returns:
        None where there is no such form, or a key or a shape differs. A bias that the module lacks is zero.
    """
    import torch

    from deploy_attn.modules.create import create

    try:
        with torch.device("meta"):  # only shapes: the weights come from the module
            reference = create(name, **options)
    except BadRequest:
        return None
    state = _state(reference, tensors_of(module), names)
    if state is None:
        return None
    reference.load_state_dict(state, assign=True)
    for path, part in reference.named_modules():
        if isinstance(getattr(part, "eps", None), float):
            _take_eps(part, module, _place(path, names))
    return reference.eval()


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint of the module holds but for BatchNorm's counters; nothing where that is no plain tensors."""
    import torch
    from torch.nn.parameter import is_lazy

    state = {key: value for key, value in module.state_dict().items() if not key.endswith(_COUNTER)}
    plain = all(isinstance(value, torch.Tensor) and not is_lazy(value) for value in state.values())
    return state if plain else {}


def holds_only(module: nn.Module, *paths: str) -> bool:
    """Whether a checkpoint of the module holds plain tensors, all of them below these paths."""
    keys = tensors_of(module)
    return bool(keys) and all(key.startswith(tuple(f"{path}." for path in paths)) for key in keys)


def part_at(module: nn.Module, path: str) -> nn.Module | None:
    """The descendant at a path, or None."""
    found: nn.Module | None = module
    for name in path.split("."):
        found = None if found is None else found._modules.get(name)
    return found


def numbers(module: nn.Module, *names: str) -> tuple[float, ...]:
    """Attributes of these names that are finite numbers, in this order."""
    found = [vars(module).get(name) for name in names]
    return tuple(
        value
        for value in found
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )


def _state(reference: nn.Module, own: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor] | None:
    """The reference's state from the module's; None if either has a key that the other has not."""
    import torch

    state: dict[str, Tensor] = {}
    like = next((value for value in own.values() if value.is_floating_point()), None)
    places = {key: _place(key, names) for key in reference.state_dict()}
    if like is None or own.keys() - places.values():
        return None
    for key, wanted in reference.state_dict().items():
        found = own.get(places[key])
        if key.endswith(_COUNTER):
            found = torch.zeros((), dtype=torch.long)
        elif found is None and key.endswith(".bias"):
            found = like.new_zeros(wanted.shape)
        if found is None or found.shape != wanted.shape:
            return None
        state[key] = found
    return state


def _place(path: str, names: Mapping[str, str]) -> str:
    fitting = [own for own in names if path == own or path.startswith(f"{own}.")]
    longest = max(fitting, key=len, default="")
    return names[longest] + path[len(longest) :] if longest else path


def _take_eps(part: nn.Module, module: nn.Module, path: str) -> None:
    found = part_at(module, path)
    eps = None if found is None else vars(found).get("eps")
    if isinstance(eps, float):
        part.eps = eps  # type: ignore[assignment]  # a module's attributes are anything
