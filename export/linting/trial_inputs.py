"""Inputs to try a graph of unknown origin on: sizes for open axes, values that its operators take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.shapes import shapes_as_far_as_known
from deploy_attn.export.linting.graph import attribute, given, nodes_of
from deploy_attn.jetson.errors import DeployAttnError

if TYPE_CHECKING:
    import numpy as np
    import onnx


CASES = ("normal", "large", "negative", "zeros")
_LARGE = 30.0
_INTEGERS = 8  # small enough for a count, a class, a position
# Ever narrower: positions and counts, then a divisor.
_RANGES = ((0, None), (0, 2), (0, 1), (1, 2))
_ROUNDING = 2.0**-23  # of FP32
_SEED = 20210721
# Extents of the leading open axis, and of the others in turn: two that differ first, so that axes
# that are mixed up show, then those that networks which ask for a certain one ask for.
_EXTENTS = ((2, (32, 48)), (3, (48, 64)), *((1, (extent,)) for extent in (64, 32, 224, 16, 8, 7, 4, 2, 1)))
_BY_POSITION = (("Gather", 1), ("GatherElements", 1), ("ScatterElements", 1))
_KEEPS_VALUES = frozenset(("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Slice"))
_MOST = 1 << 28  # elements of all inputs together


@dataclass(frozen=True)
class Port:
    """One input.

    Attributes:
        name: its name.
        dtype: of numpy.
        extents: a number, or the name of an open axis; axes of one name have one size.
        below: what every value must be below where values are positions; None where any value will do.
    """

    name: str
    dtype: np.dtype[Any]
    extents: tuple[int | str, ...]
    below: int | None

    @property
    def is_open(self) -> bool:
        return any(isinstance(extent, str) for extent in self.extents)


@dataclass(frozen=True)
class Choice:
    """Sizes of the open axes, and where integers lie: from `least` to below `below`, or as far as their port says."""

    sizes: Mapping[str, int]
    least: int = 0
    below: int | None = None


def ports_of(model: onnx.ModelProto) -> tuple[Port, ...]:
    """The inputs that have to be fed.

    Raises:
        DeployAttnError: one of them is no tensor of numbers, or its rank is not declared.
    """
    import numpy as np
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}
    shapes = _shapes(model)
    ports = []
    for value in model.graph.input:
        if value.name in weights:
            continue
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            raise DeployAttnError(
                f"input {value.name!r} is no tensor of a declared rank, so that no values can be made for it"
            )
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        if dtype.kind not in "fiub":
            raise DeployAttnError(f"input {value.name!r} is of {dtype}, and values are made for numbers only")
        extents = tuple(_extent(value.name, axis, item) for axis, item in enumerate(tensor.shape.dim))
        below = _bound(model.graph, value.name, shapes) if dtype.kind in "iu" else None
        ports.append(Port(value.name, dtype, extents, below))
    return tuple(ports)


def choices(ports: Sequence[Port]) -> Iterator[Choice]:
    """Sizes to try, the likeliest first, each with ever smaller integers."""
    batches = dict.fromkeys(port.extents[0] for port in ports if port.extents and isinstance(port.extents[0], str))
    others = dict.fromkeys(e for port in ports for e in port.extents if isinstance(e, str) and e not in batches)
    tried: list[Mapping[str, int]] = []
    for batch, extents in _EXTENTS:
        sizes = {**dict.fromkeys(batches, batch), **{name: extents[i % len(extents)] for i, name in enumerate(others)}}
        if sizes in tried or _elements(ports, sizes) > _MOST:
            continue
        tried.append(sizes)
        for least, below in _RANGES if any(port.dtype.kind in "iu" for port in ports) else _RANGES[:1]:
            yield Choice(sizes, least, below)


def feeds_of(ports: Sequence[Port], choice: Choice, case: str) -> dict[str, np.ndarray[Any, Any]]:
    """Seeded values for each input: one of CASES."""
    import numpy as np

    random = np.random.default_rng([_SEED, CASES.index(case)])
    return {port.name: _values(port, choice, case, random) for port in ports}


def perturbed(feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """The same inputs with every FP32 or wider number one rounding away."""
    import numpy as np

    random = np.random.default_rng(_SEED)
    near = {}
    for name, array in feeds.items():
        sign = random.choice([-1.0, 1.0], array.shape)
        moved = array.dtype.kind == "f" and array.dtype.itemsize >= 4
        near[name] = np.asarray(array * (1.0 + _ROUNDING * sign), array.dtype) if moved else array
    return near


def _values(port: Port, choice: Choice, case: str, random: np.random.Generator) -> np.ndarray[Any, Any]:
    import numpy as np

    shape = _shape(port, choice.sizes)
    if case == "zeros":
        return np.zeros(shape, port.dtype)
    if port.dtype.kind == "b":
        return random.integers(0, 2, shape).astype(port.dtype)
    if port.dtype.kind in "iu":
        bound = port.below or (np.iinfo(port.dtype).max + 1 if port.dtype.itemsize == 1 else _INTEGERS)
        below = bound if choice.below is None else min(choice.below, bound)
        return random.integers(min(choice.least, below - 1), below, shape).astype(port.dtype)
    normal = random.standard_normal(shape)
    return {"normal": normal, "large": normal * _LARGE, "negative": -abs(normal)}[case].astype(port.dtype)


def _extent(name: str, axis: int, dimension: onnx.TensorShapeProto.Dimension) -> int | str:
    if dimension.HasField("dim_value") and dimension.dim_value >= 0:
        return dimension.dim_value
    return dimension.dim_param or f"{name}.{axis}"


def _shape(port: Port, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[extent] if isinstance(extent, str) else extent for extent in port.extents)


def _elements(ports: Sequence[Port], sizes: Mapping[str, int]) -> int:
    return sum(math.prod(_shape(port, sizes)) for port in ports if port.is_open)


def _bound(graph: onnx.GraphProto, name: str, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The least extent that an input's values are positions along."""
    waiting, seen = [name], {name}
    bounds: list[int] = []
    while waiting:
        current = waiting.pop()
        for node in nodes_of(graph):
            if current not in node.input:
                continue
            if node.op_type in _KEEPS_VALUES and node.input[0] == current and node.output[0] not in seen:
                seen.add(node.output[0])
                waiting.append(node.output[0])
            bounds.extend(_positions(node, current, shapes))
    return min(bounds, default=None)


def _positions(node: onnx.NodeProto, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[int]:
    """Extents that a tensor's values are positions along in a node."""
    shape = shapes.get(node.input[0])
    for op_type, index in _BY_POSITION:
        if node.op_type == op_type and given(node, index) == name and shape:
            yield max(1, shape[attribute(node, "axis", 0)])
    if node.op_type in ("GatherND", "ScatterND") and given(node, 1) == name and shape:
        yield max(1, min(shape))


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Known extents by tensor, an open one as 1."""
    graph = shapes_as_far_as_known(model)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in (*graph.input, *graph.value_info):
        if value.type.tensor_type.HasField("shape") and value.name not in shapes:
            shapes[value.name] = tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
    return shapes
