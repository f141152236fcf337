"""The catalogue's formulas, `Entry.parameters` and `Entry.macs`, as numbers; without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from deploy_attn.modules.catalogue import Settings


def evaluate(formula: str, channels: int, height: int, width: int, settings: Settings) -> int:
    """The value of an entry's formula for a map of `c h w` and these options.

    >>> evaluate("2 * c * (c // reduction)", 64, 56, 56, {"reduction": 16})
    512

    Args:
        formula: of the catalogue itself, never from outside: it is evaluated as Python.
        settings: as `deploy_attn.modules.settings.settings` returns them.

    Raises:
        ValueError: the formula is empty, or its value is no whole number.
    """
    if not formula:
        raise ValueError("an empty formula")
    known = {"__builtins__": {}, **_FUNCTIONS, **settings, "c": channels, "h": height, "w": width}
    value: float = eval(formula, known)  # noqa: S307  # the catalogue's own text, without builtins
    if value != int(value):
        raise ValueError(f"{formula} = {value}, which counts nothing")
    return int(value)


def odd(value: float) -> int:
    """Truncated, and made odd upwards."""
    size = int(value)
    return size if size % 2 else size + 1


_FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"abs": abs, "len": len, "log2": math.log2, "max": max, "min": min, "odd": odd, "sum": sum}
)
