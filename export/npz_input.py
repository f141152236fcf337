"""Parity inputs from a .npz archive: an array for each argument, by its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.export.input_spec import TYPES, InputSpec
from deploy_attn.jetson.artifact import UNREADABLE, arrays_of, open_npz
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

NPZ = ".npz"


def npz_specs(file: Path) -> tuple[InputSpec, ...]:
    """An input for each array: shape, type, and the array's name; `arr_0`, as numpy numbers them, are given by place.

    Raises:
        BadRequest: it cannot be read, or holds what no input can be.
    """
    arrays = _loaded(file)
    numbered = [name for name in _numbered(len(arrays)) if name in arrays]
    named = [name for name in arrays if name not in numbered]
    return tuple(_spec(file, name, arrays[name], name in named) for name in (*numbered, *named))


def npz_arrays(file: Path, specs: Sequence[InputSpec]) -> list[Array]:
    """The array of each input, in its type.

    Raises:
        BadRequest: as `npz_specs`; or an array is missing, not asked for, of another shape, or of values that its
            input's type does not hold.
    """
    arrays = _loaded(file)
    if len(specs) == len(arrays) == 1:
        return [_as_spec(file, next(iter(arrays)), next(iter(arrays.values())), specs[0])]
    wanted = [spec.name or number for spec, number in zip(specs, _numbered(len(specs)))]
    if set(wanted) != set(arrays):
        raise BadRequest(
            f"--input {file} holds {', '.join(arrays)}; the inputs of the export are {', '.join(wanted)}. "
            "Name them alike, as in --shape mask=1x16, or leave --shape out."
        )
    return [_as_spec(file, name, arrays[name], spec) for name, spec in zip(wanted, specs)]


def _numbered(count: int) -> Iterator[str]:
    return (f"arr_{index}" for index in range(count))


def _loaded(file: Path) -> dict[str, Array]:
    try:
        with file.open("rb") as stream, open_npz(stream) as archive:
            arrays = arrays_of(archive, "")
    except UNREADABLE as error:
        raise BadRequest(f"--input {file} cannot be read as a .npz archive: {error}.") from error
    if not arrays:
        raise BadRequest(f"--input {file} holds no arrays.")
    return arrays


def _spec(file: Path, name: str, array: Array, named: bool) -> InputSpec:
    dtype = array.dtype.name if array.dtype.name in TYPES else "float32"
    try:
        return InputSpec(array.shape, name if named else None, dtype)
    except BadRequest as error:
        raise BadRequest(f"--input {file} holds {name!r} of shape {array.shape}: {error}") from error


def _as_spec(file: Path, name: str, array: Array, spec: InputSpec) -> Array:
    import numpy as np

    said = f"--input {file} holds {name!r} as {array.dtype} of shape {array.shape}"
    if array.shape != spec.shape:
        raise BadRequest(f"{said}, the export is of {spec.text}. Set --shape to one of them.")
    whole = spec.dtype != "float32"
    if array.dtype.kind not in ("biu" if whole else "biuf") or (spec.dtype == "bool" and array.dtype.kind != "b"):
        raise BadRequest(f"{said}, which is no {spec.dtype}. Store it as that type, or name another with --shape.")
    with np.errstate(over="ignore"):
        values: Array = np.ascontiguousarray(array, dtype=spec.dtype)
    if not np.isfinite(values).all() or (whole and not np.array_equal(values, array)):
        raise BadRequest(f"{said}, with values that are NaN, Inf or beyond {spec.dtype}; parity needs numbers.")
    return values
