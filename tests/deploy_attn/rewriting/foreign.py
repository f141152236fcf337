"""Catalogue modules as users have them: the same layers and names, in a class that knows nothing of the catalogue."""

from __future__ import annotations

from typing import Any

from torch import nn

from deploy_attn import create


def foreign(name: str, **options: object) -> Any:
    """A module of another class with the layers, attributes and forward of a catalogue module."""
    source = create(name, **options)
    body = {key: value for key, value in vars(type(source)).items() if not key.startswith(("__", "_abc"))}
    kind: Any = type("Gadget", (nn.Module,), {**body, "_check_map": lambda self, x: None})
    module = kind.__new__(kind)
    module.__dict__.update(vars(source))
    return module
