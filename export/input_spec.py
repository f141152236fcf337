"""What one input of a network is: its shape and type, and its argument's name where one was given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy_attn.jetson.errors import BadRequest

OneShape = str | tuple[int, ...]
TYPES = ("float32", "int64", "int32", "bool")
WANTED = (
    "It takes numbers of at least 1, BxCxHxW, as in 1x64x56x56; for one of several inputs its argument's name as well, "
    "as in mask=1x16, and a type where that is not float32, as in tokens=1x16:int64."
)
_MOST_AXES = 6
_MOST_DIGITS = 9
_MOST_VALUES = 2**31 // 4  # of 4 bytes each: what one ONNX or npz entry can surely hold


@dataclass(frozen=True)
class InputSpec:
    """One input.

    Attributes:
        shape: one to six extents.
        name: of the argument that it is given by; None for the next by place.
        dtype: one of `TYPES`.

    Raises:
        BadRequest: a shape or type that no input can have.
    """

    shape: tuple[int, ...]
    name: str | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        extents = self.shape
        if not 1 <= len(extents) <= _MOST_AXES or not all(type(extent) is int and extent > 0 for extent in extents):
            raise BadRequest(f"{extents!r} is not a shape. {WANTED}")
        if math.prod(extents) > _MOST_VALUES:
            raise BadRequest(
                f"An input of shape {extents} has {math.prod(extents)} values; at most {_MOST_VALUES} are possible."
            )
        if self.dtype not in TYPES:
            raise BadRequest(f"An input cannot be of type {self.dtype!r}. Known: {', '.join(TYPES)}.")
        if self.name is not None and not self.name.isidentifier():
            raise BadRequest(f"{self.name!r} names no argument. {WANTED}")

    @property
    def text(self) -> str:
        """As the command line takes it."""
        name = "" if self.name is None else f"{self.name}="
        return f"{name}{'x'.join(map(str, self.shape))}{'' if self.dtype == 'float32' else f':{self.dtype}'}"


def specs_of(shapes: object) -> tuple[InputSpec, ...]:
    """The inputs that a request names: a shape, text as on the command line, several of them, or a dict by argument.

    Raises:
        BadRequest: anything else, or an argument twice.
    """
    if isinstance(shapes, Mapping):
        found = [_spec(shape, str(name)) for name, shape in shapes.items()]
    elif _is_one(shapes):
        found = [_spec(shapes)]
    elif isinstance(shapes, Sequence):
        found = [_spec(shape) for shape in shapes]
    else:
        raise BadRequest(f"{shapes!r} is not a shape. {WANTED}")
    if not found:
        raise BadRequest(f"{shapes!r} names no input. Leave it out, or name one.")
    names = [spec.name for spec in found if spec.name is not None]
    if len(set(names)) < len(names):
        raise BadRequest(f"The shapes name an argument twice: {', '.join(names)}.")
    if any(spec.name is None for spec in found[len(found) - len(names) :]):
        raise BadRequest(
            f"The shapes {', '.join(spec.text for spec in found)} give a named input before one without a name. "
            "Put those without a name first, as in a call."
        )
    return tuple(found)


def _is_one(shapes: object) -> bool:
    is_numbers = isinstance(shapes, (tuple, list)) and not any(isinstance(part, (str, Sequence)) for part in shapes)
    return isinstance(shapes, (str, InputSpec)) or is_numbers


def _spec(shape: object, name: str | None = None) -> InputSpec:
    if isinstance(shape, InputSpec):
        return shape
    if isinstance(shape, str):
        return _from_text(shape if name is None else f"{name}={shape}")
    if not isinstance(shape, (tuple, list)):
        raise BadRequest(f"{shape!r} is not a shape. {WANTED}")
    return InputSpec(tuple(shape), name)


def _from_text(text: str) -> InputSpec:
    given, colon, dtype = text.partition(":")
    name, equals, extents = given.rpartition("=")
    parts = extents.lower().split("x")
    plain = all(part.isascii() and part.isdigit() and len(part) <= _MOST_DIGITS for part in parts)
    if not plain or (equals and not name) or (colon and not dtype):
        raise BadRequest(f"--shape {text[:60]!r} is not a shape. {WANTED}")
    return InputSpec(tuple(map(int, parts)), name or None, dtype or "float32")
