"""What a recogniser says of a module: what it may be, why, and the form that would replace it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy_attn.engines.target import FAMILIES

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.export.layout import Layout
    from deploy_attn.modules.base import MapShape

    Build = Callable[[MapShape, str], nn.Module]
    Recogniser = Callable[[nn.Module], Iterator["Match"]]


@dataclass(frozen=True)
class Match:
    """One reading of a module. It is a guess until its certificate holds.

    Attributes:
        name: the mechanism: a catalogue name, or what a family calls it.
        evidence: what was seen, one fact each: a type, keys, a child, an attribute.
        build: makes the export form of this name for a map of this shape from
            the module's weights, in the module's dtype; it may raise BadRequest
            for a shape that it cannot take. None where the mechanism is known
            and has no form.
        refusal: without `build`, why, and what to do.
        layout: of the map that the module takes; `b n c` is built for n rows and one column.
        exact: the type alone says what it is, so that its own weights are proof enough.
        forms: the names that `build` takes; an engine's family (`cpu`, `gpu`) names the one that is shipped for it.
    """

    name: str
    evidence: tuple[str, ...]
    build: Build | None = None
    refusal: str | None = None
    layout: Layout = "b c h w"
    exact: bool = False
    forms: tuple[str, ...] = FAMILIES
