"""What the catalogue holds: names, papers, options and constraints, without torch.

A module is one file beside this one and one entry in `entries`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.suggest import known_names

OptionValue = bool | int | float | str | tuple[int, ...]
Settings = Mapping[str, Any]
Shape = tuple[int, int, int, int]  # b c h w


def is_shape(shape: object) -> bool:
    """Whether these are four whole numbers of at least 1."""
    if not isinstance(shape, (tuple, list)) or len(shape) != 4:
        return False
    return all(type(extent) is int and extent > 0 for extent in shape)


class Option(NamedTuple):
    """A constructor option; its default's type is the type that it takes."""

    name: str
    default: OptionValue
    meaning: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


class Constraint(NamedTuple):
    """What must hold between the channels, the options and the map; `about` names those it reads.

    A map's extents are `map_height` and `map_width`.
    """

    text: str
    about: tuple[str, ...]
    holds: Callable[[Settings], bool]


class Entry(NamedTuple):
    """One attention system.

    Attributes:
        source_arguments: the source's own argument names -> the catalogue's
            vocabulary; this is the only place that knows them.
        constraints: between channels and options, checked when it is created.
        map_constraints: on a map's height and width, checked when they are known.
        open_map_constraints: what leaving height and width open needs.
        needs_channels: False where the module has no weights that depend on them.
        parameters: their number, as a formula of `c` (channels) and the options.
        macs: multiply-accumulates of one map in the source's form, of `c`, `h`, `w` and the options.
        hazards: what goes wrong in practice, a sentence each.
    """

    name: str
    title: str
    year: int
    arxiv: str
    class_name: str
    options: tuple[Option, ...]
    constraints: tuple[Constraint, ...]
    source_arguments: Mapping[str, str]
    parameters: str
    macs: str
    hazards: tuple[str, ...] = ()
    map_constraints: tuple[Constraint, ...] = ()
    open_map_constraints: tuple[Constraint, ...] = ()
    needs_channels: bool = True

    @property
    def module(self) -> str:
        return f"deploy_attn.modules.{self.name}"


def available() -> list[str]:
    """Names of the catalogue, sorted."""
    return sorted(found.name for found in entries())


def entry(name: str) -> Entry:
    """The entry of a name.

    Raises:
        BadRequest: no such name; the known ones are listed, nearest first.
    """
    if not isinstance(name, str):
        raise BadRequest(f"A module is named by text, as in 'cbam'; got {name!r}.")
    by_name = {found.name: found for found in entries()}
    if name not in by_name:
        raise BadRequest(
            f"Unknown attention module {name!r}. {known_names(name, by_name)} "
            "A network of your own is named as file.py:factory."
        )
    return by_name[name]


def entries() -> Iterable[Entry]:
    """All entries, in the order of the catalogue."""
    from deploy_attn.modules.entries import ENTRIES

    return ENTRIES
