"""Artifact -> running engine: targets, engine files, runners, parity. Never imports torch.

One runtime a file; `engine_class` finds it by name and imports it only then. A
name of this package is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if __name__ == "engines":
    raise ImportError("import deploy_attn.engines, not engines: this folder is the source of that subpackage")

if TYPE_CHECKING:
    from deploy_attn.engines.base import ENGINES, Engine, Runner, engine_class
    from deploy_attn.engines.loading import load
    from deploy_attn.engines.parity import verify
    from deploy_attn.engines.target import Target, load_target, target_names
    from deploy_attn.engines.tolerance import TOLERANCES, Tolerance
    from deploy_attn.engines.verdict import Verdict

_HOMES: Mapping[str, str] = MappingProxyType(
    {
        "ENGINES": "base",
        "Engine": "base",
        "Runner": "base",
        "engine_class": "base",
        "load": "loading",
        "verify": "parity",
        "Target": "target",
        "load_target": "target",
        "target_names": "target",
        "TOLERANCES": "tolerance",
        "Tolerance": "tolerance",
        "Verdict": "verdict",
    }
)

__all__ = [
    "ENGINES",
    "TOLERANCES",
    "Engine",
    "Runner",
    "Target",
    "Tolerance",
    "Verdict",
    "engine_class",
    "load",
    "load_target",
    "target_names",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
