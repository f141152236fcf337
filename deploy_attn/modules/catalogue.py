"""What the catalogue holds: names, papers, options and constraints, without torch.

A module is one file beside this one and one entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.suggest import known_names

OptionValue = bool | int | float | str
Settings = Mapping[str, OptionValue]
Shape = tuple[int, int, int, int]  # b c h w


class Option(NamedTuple):
    """A constructor option; its default's type is the type that it takes."""

    name: str
    default: OptionValue
    meaning: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


class Constraint(NamedTuple):
    """What must hold between the channels and the options."""

    text: str
    holds: Callable[[Settings], bool]


class Entry(NamedTuple):
    """One attention system.

    `source_arguments` maps the source's own argument names to the catalogue's
    vocabulary; it is the only place that knows them.
    """

    name: str
    title: str
    year: int
    arxiv: str
    class_name: str
    options: tuple[Option, ...]
    constraints: tuple[Constraint, ...]
    source_arguments: Mapping[str, str]

    @property
    def module(self) -> str:
        return f"deploy_attn.modules.{self.name}"


def available() -> list[str]:
    """Names of the catalogue, sorted."""
    return sorted(_by_name())


def entry(name: str) -> Entry:
    """The entry of a name.

    Raises:
        BadRequest: no such name; the known ones are listed, nearest first.
    """
    entries = _by_name()
    if name not in entries:
        raise BadRequest(
            f"Unknown attention module {name!r}. {known_names(name, entries)} "
            "A network of your own is named as file.py:factory."
        )
    return entries[name]


_REDUCTION = Option("reduction", 16, "the hidden layer has channels // reduction units", minimum=1)
_HAS_HIDDEN_UNIT = Constraint("channels >= reduction", lambda s: int(s["channels"]) >= int(s["reduction"]))
_ODD_KERNEL = Constraint("an odd kernel_size", lambda s: int(s["kernel_size"]) % 2 == 1)
_ANY_SHAPE = Constraint("channels >= 1", lambda s: int(s["channels"]) >= 1)

_ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="se",
        title="Squeeze-and-Excitation",
        year=2018,
        arxiv="1709.01507",
        class_name="SE",
        options=(_REDUCTION,),
        constraints=(_ANY_SHAPE, _HAS_HIDDEN_UNIT),
        source_arguments=MappingProxyType({"channel": "channels", "ratio": "reduction"}),
    ),
    Entry(
        name="cbam",
        title="Convolutional Block Attention Module",
        year=2018,
        arxiv="1807.06521",
        class_name="CBAM",
        options=(_REDUCTION, Option("kernel_size", 7, "kernel of the spatial gate", minimum=1, maximum=255)),
        constraints=(_ANY_SHAPE, _HAS_HIDDEN_UNIT, _ODD_KERNEL),
        source_arguments=MappingProxyType({"channel": "channels", "ratio": "reduction"}),
    ),
    Entry(
        name="cbam_residual",
        title="CBAM with a large kernel and a residual",
        year=2018,
        arxiv="1807.06521",
        class_name="CBAMResidual",
        options=(_REDUCTION, Option("kernel_size", 49, "kernel of the spatial gate", minimum=1, maximum=255)),
        constraints=(_ANY_SHAPE, _HAS_HIDDEN_UNIT, _ODD_KERNEL),
        source_arguments=MappingProxyType({"channel": "channels"}),
    ),
    Entry(
        name="eca",
        title="Efficient Channel Attention, kernel from the channels",
        year=2020,
        arxiv="1910.03151",
        class_name="ECA",
        options=(
            Option("gamma", 2.0, "kernel is |(log2(channels) + beta) / gamma|, made odd", minimum=0.1, maximum=100),
            Option("beta", 1.0, "see gamma", minimum=-100, maximum=100),
        ),
        constraints=(_ANY_SHAPE,),
        source_arguments=MappingProxyType({"channel": "channels", "b": "beta"}),
    ),
    Entry(
        name="eca_fixed",
        title="Efficient Channel Attention, given kernel and a bias",
        year=2020,
        arxiv="1910.03151",
        class_name="ECAFixed",
        options=(Option("kernel_size", 3, "kernel across the channels", minimum=1, maximum=255),),
        constraints=(_ANY_SHAPE, _ODD_KERNEL),
        source_arguments=MappingProxyType({}),
    ),
    Entry(
        name="s2",
        title="S2-MLPv2 spatial-shift attention",
        year=2021,
        arxiv="2108.01072",
        class_name="S2",
        options=(
            Option(
                "semantics",
                "shift",
                "shift: as in the paper and on a GPU; smear: what in-place copies give on one CPU thread",
                choices=("shift", "smear"),
            ),
        ),
        constraints=(_ANY_SHAPE,),
        source_arguments=MappingProxyType({}),
    ),
)


def entries() -> Iterable[Entry]:
    """All entries, in the order of the catalogue."""
    return _ENTRIES


def _by_name() -> Mapping[str, Entry]:
    return {found.name: found for found in _ENTRIES}
