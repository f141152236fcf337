"""The shapes that an engine is built to take: read from a graph, chosen, and held against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.suggest import known_names

Shape = tuple[int, ...]
OpenShape = tuple[int | None, ...]
_MOST_DIGITS = 10  # TensorRT's extents are 32 bits


@dataclass(frozen=True)
class ShapeRange:
    """The shapes that an input may take, and the one that the engine is tuned for."""

    minimum: Shape
    optimum: Shape
    maximum: Shape

    def __post_init__(self) -> None:
        shapes = (self.minimum, self.optimum, self.maximum)
        in_order = all(1 <= low <= usual <= high for low, usual, high in zip(*shapes))
        if len({len(shape) for shape in shapes}) > 1 or not in_order:
            raise BadRequest(
                f"A profile got {', '.join(map(shape_text, shapes))} as minimum, optimum and maximum. "
                "They must be of one rank, with 1 <= minimum <= optimum <= maximum on every axis."
            )

    def as_lists(self) -> list[list[int]]:
        return [list(self.minimum), list(self.optimum), list(self.maximum)]


Profile = Mapping[str, ShapeRange]


def input_shapes(model: bytes) -> dict[str, OpenShape]:
    """The inputs of an ONNX file by name, weights aside; an open axis is None.

    Raises:
        BadRequest: the bytes are not an ONNX file, or hold no graph.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load_from_string(model).graph
    except DecodeError as error:
        raise BadRequest(f"A build was given {len(model)} bytes that are not an ONNX file: {error}.") from error
    if not graph.output:  # a parser takes such a file, even an empty one
        raise BadRequest(f"A build was given {len(model)} bytes that hold no graph with an output.")
    weights = {initializer.name for initializer in graph.initializer}
    return {
        value.name: tuple(
            axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim
        )
        for value in graph.input
        if value.name not in weights
    }


def check_profile(profile: Profile, inputs: Mapping[str, OpenShape]) -> None:
    """Raises BadRequest unless it covers every open input and fits each that it names."""
    for name in profile:
        if name not in inputs:
            raise BadRequest(f"The profile names input {name!r}, which the graph lacks. {known_names(name, inputs)}")
    for name, shape in inputs.items():
        if name not in profile and None in shape:
            raise BadRequest(
                f"Input {name!r} is {shape_text(shape)}: give a profile of the shapes that it may take, "
                "or export the graph with fixed shapes."
            )
        for asked in (profile[name].minimum, profile[name].maximum) if name in profile else ():
            if len(asked) != len(shape) or any(extent not in (None, want) for extent, want in zip(shape, asked)):
                raise BadRequest(
                    f"The profile gives input {name!r} {shape_text(asked)}; the graph takes {shape_text(shape)}."
                )


def profile_from_cases(inputs: Mapping[str, OpenShape], cases: Sequence[Mapping[str, Shape]]) -> dict[str, ShapeRange]:
    """For each input with open axes: from 1, tuned for the first case, up to the largest of any.

    Args:
        inputs: as `input_shapes` gives them.
        cases: the shape of each input, a case each.
    """
    profile = {}
    for name, shape in inputs.items():
        if None not in shape:
            continue
        found = [case[name] for case in cases]
        smallest = tuple(1 if extent is None else extent for extent in shape)
        profile[name] = ShapeRange(smallest, found[0], tuple(map(max, zip(*found))))
    return profile


def shape_from_text(text: str, flag: str) -> Shape:
    """`1x64x56x56` as positive integers.

    Raises:
        BadRequest: anything else; `flag` is named as what was given.
    """
    parts = text.lower().split("x")
    if not all(part.isascii() and part.isdigit() and len(part) < _MOST_DIGITS and int(part) for part in parts):
        raise BadRequest(f"{flag} {text[:60]!r} is not a shape. It takes numbers of at least 1, as in 1x64x56x56.")
    return tuple(map(int, parts))


def shape_text(shape: Sequence[int | None]) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in shape)
