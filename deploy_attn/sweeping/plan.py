"""What a sweep asks: its cells, as a value that can be written and read again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deploy_attn.engines.base import engine_class
from deploy_attn.engines.latency import protocol
from deploy_attn.engines.profile import shape_from_text, shape_text
from deploy_attn.engines.target import target_names
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.parity import PRECISIONS
from deploy_attn.jetson.suggest import known_names
from deploy_attn.request import DEFAULT_TARGET
from deploy_attn.rivals.rival import RIVALS

ALL = "all"
DEFAULT_SHAPE = "1x64x56x56"
DEFAULT_ENGINE = "onnxruntime"

_AXES = 4  # of a map, which is what the modules of the catalogue take
_KEY_DIGITS = 16
_UNFIT = re.compile(r"[^A-Za-z0-9._=-]+")
_LONGEST_NAME = 100
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A comma before a letter begins the next module; one before a digit goes on with a list of numbers.
_NEXT_MODULE = re.compile(r",(?![0-9])")


@dataclass(frozen=True)
class Module:
    """A catalogue name and its options, as texts."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return ":".join((self.name, *(f"{name}={value}" for name, value in self.options)))


@dataclass(frozen=True)
class Cell:
    """One place of a sweep. Whether the module takes the shape is known when it is run."""

    module: Module
    shape: str
    precision: str
    engine: str
    target: str = DEFAULT_TARGET

    def as_dict(self) -> dict[str, Any]:
        return {
            "module": self.module.name,
            "options": dict(self.module.options),
            "shape": self.shape,
            "precision": self.precision,
            "engine": self.engine,
            "target": self.target,
        }

    @property
    def name(self) -> str:
        """Of its artifact's folder; cells whose options are long may share one."""
        said = _UNFIT.sub("_", "-".join((*str(self.module).split(":"), self.shape, self.precision, self.engine)))
        return said[:_LONGEST_NAME]

    def __str__(self) -> str:
        return f"{self.module} {self.shape} {self.precision} {self.engine}"


@dataclass(frozen=True)
class Effort:
    """How each cell is measured: against which rival (None: alone), and for about how long (None: as `bench` does).

    Raises:
        BadRequest: there is no such rival, or no such time.
    """

    against: str | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.against is not None and self.against not in RIVALS:
            raise BadRequest(f"Unknown rival {self.against!r}. {known_names(self.against, RIVALS)}")
        protocol.Effort(seconds=self.seconds)

    def as_dict(self) -> dict[str, Any]:
        return {"against": self.against, "seconds": self.seconds}


@dataclass(frozen=True)
class Plan:
    """Every combination of these, for one target.

    Raises:
        BadRequest: nothing to do, a shape of no map, or a precision, engine or target that does not exist.
    """

    modules: tuple[Module, ...]
    shapes: tuple[str, ...] = (DEFAULT_SHAPE,)
    precisions: tuple[str, ...] = PRECISIONS
    engines: tuple[str, ...] = (DEFAULT_ENGINE,)
    target: str = DEFAULT_TARGET
    effort: Effort = Effort()

    def __post_init__(self) -> None:
        axes = {"modules": self.modules, "shapes": self.shapes, "precisions": self.precisions, "engines": self.engines}
        for axis, values in axes.items():
            if not values:
                raise BadRequest(f"The plan is empty: --{axis} names none. A sweep needs at least one of each.")
        for precision in self.precisions:
            if precision not in PRECISIONS:
                raise BadRequest(f"Unknown precision {precision!r}. {known_names(precision, PRECISIONS)}")
        for shape in self.shapes:
            if len(shape_from_text(shape, "--shapes")) != _AXES:
                raise BadRequest(f"--shapes {shape!r} is of no map. A module takes BxCxHxW, as in {DEFAULT_SHAPE}.")
        for engine in self.engines:
            engine_class(engine)
        if self.target not in target_names():
            raise BadRequest(f"Unknown target {self.target!r}. {known_names(self.target, target_names())}")

    def as_dict(self) -> dict[str, Any]:
        return {
            "modules": [str(module) for module in self.modules],
            "shapes": list(self.shapes),
            "precisions": list(self.precisions),
            "engines": list(self.engines),
            "target": self.target,
            "effort": self.effort.as_dict(),
        }

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Each once, in the order of the plan."""
        return tuple(
            dict.fromkeys(
                Cell(module, shape, precision, engine, self.target)
                for module in self.modules
                for shape in self.shapes
                for engine in self.engines
                for precision in self.precisions
            )
        )


def plan_from_texts(axes: Mapping[str, Iterable[str]], target: str, effort: Effort) -> Plan:
    """A plan as the command line has it: texts with commas, by the name of their option.

    Args:
        axes: `modules`, `shapes`, `precisions` and `engines`; one that is left out has its default.
        target: a target's name.
        effort: how each cell is measured.

    Raises:
        BadRequest: as `Plan`, or a text that is none of its kind.
    """
    parts = {
        axis: _parts(texts, _NEXT_MODULE if axis == "modules" else re.compile(",")) for axis, texts in axes.items()
    }
    named = [module for text in parts.pop("modules", ()) for module in _modules(text)]
    if "shapes" in parts:
        parts["shapes"] = tuple(shape_text(shape_from_text(shape, "--shapes")) for shape in parts["shapes"])
    return Plan(modules=tuple(named), **parts, target=target, effort=effort)


def key_of(cell: Cell, effort: Effort, made_with: Mapping[str, str]) -> str:
    """Names the result of a cell: another code, tool or effort gives another key.

    Args:
        cell: what is measured.
        effort: how.
        made_with: versions, by name.
    """
    whole = {"cell": cell.as_dict(), "effort": effort.as_dict(), "made_with": dict(made_with)}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode("utf-8")).hexdigest()[:_KEY_DIGITS]


def _parts(texts: Iterable[str], separator: re.Pattern[str]) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts for part in separator.split(text) if part.strip())


def _modules(text: str) -> tuple[Module, ...]:
    """`cbam:reduction=8`, or the whole catalogue."""
    if text == ALL:
        from deploy_attn.modules.catalogue import available

        return tuple(map(Module, available()))
    name, *pairs = text.split(":")
    if not _MODULE.fullmatch(name):
        raise BadRequest(
            f"--modules {text[:60]!r} is no name of the catalogue. A sweep takes those of `deploy-attn list`, with "
            "options as in cbam:reduction=8. Export and bench a network of your own by itself."
        )
    options: dict[str, str] = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not (option and equals and value) or option in options:
            raise BadRequest(f"--modules {text[:60]!r}: {pair!r} is not one NAME=VALUE, as in cbam:reduction=8.")
        options[option] = value
    return (Module(name, tuple(sorted(options.items()))),)
