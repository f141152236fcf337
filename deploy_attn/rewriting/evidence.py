"""What can be seen of a module from outside: its type, its keys, its children, the source of its forward."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

_MOST_KEYS = 8


def qualified_name(module: nn.Module) -> str:
    """Package, module and class, as `timm.layers.squeeze_excite.SEModule`."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}"


def key_ranks(module: nn.Module) -> dict[str, int]:
    """The rank of every parameter and buffer that a checkpoint holds, but for counters of BatchNorm."""
    return {key: value.dim() for key, value in _tensors(module).items()}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Without counters, and without what a module adds to its state that is no tensor."""
    import torch

    state = module.state_dict().items()
    return {
        key: value
        for key, value in state
        if isinstance(value, torch.Tensor) and not key.endswith("num_batches_tracked")
    }


def keys_are(module: nn.Module, wanted: Mapping[str, int], optional: Mapping[str, int] | None = None) -> bool:
    """Whether a module has exactly these keys of these ranks, and of the optional ones any."""
    found = key_ranks(module)
    known = {**(optional or {}), **wanted}
    return wanted.keys() <= found.keys() and all(known.get(key) == rank for key, rank in found.items())


def keys_said(module: nn.Module) -> str:
    """The keys as evidence."""
    shapes = {key: "x".join(map(str, value.shape)) for key, value in _tensors(module).items()}
    listed = [f"{key} {shape or 'scalar'}" for key, shape in shapes.items()]
    more = f" and {len(listed) - _MOST_KEYS} more" if len(listed) > _MOST_KEYS else ""
    return f"keys {', '.join(listed[:_MOST_KEYS])}{more}" if listed else "no keys"


def forward_fingerprint(module: nn.Module) -> str | None:
    """Hash of the source of forward, without comments, doc strings and layout; None where there is no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(module).forward)))
    except (OSError, TypeError, SyntaxError):
        return None
    function = tree.body[0]
    if isinstance(function, ast.FunctionDef) and ast.get_docstring(function) is not None:
        function.body = function.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]
