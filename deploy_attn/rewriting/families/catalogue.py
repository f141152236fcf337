"""Modules of this package's own catalogue, by their exact type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.engines.target import FAMILIES
from deploy_attn.rewriting.evidence import qualified_name
from deploy_attn.rewriting.match import Match

if TYPE_CHECKING:
    from torch import nn

_CATALOGUE = "deploy_attn.modules."


def recognise(module: nn.Module) -> Iterator[Match]:
    """An instance of a reference form is what it says it is; a subclass may compute something else, and is tried."""
    from deploy_attn.modules.base import ReferenceForm

    if isinstance(module, ReferenceForm):
        name = qualified_name(module)
        yield Match(
            name=module.catalogue_name,
            evidence=(f"type {name}",),
            build=module.form_for,
            exact=name.startswith(_CATALOGUE),
            forms=tuple(getattr(module, "forms", FAMILIES)),  # a subclass may build its form by itself
        )
