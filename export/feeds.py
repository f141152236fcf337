"""The arrays of every parity case, one for each input in the order of its specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deploy_attn.export.input_spec import InputSpec
from deploy_attn.export.inputs import check_is_file, larger_map, noise_inputs, npy_shape, parity_input, twice_the_batch
from deploy_attn.export.npz_input import NPZ, npz_arrays, npz_specs
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

OPEN_CASES: Mapping[str, str] = MappingProxyType({"larger_batch": "--dynamic-batch", "larger_map": "--dynamic-size"})
_SEEDS = 2**32
_MAP = 4  # axes


def specs_of_file(file: Path) -> tuple[InputSpec, ...]:
    """What a .npy or .npz file says of the inputs; nothing for a photo.

    Raises:
        BadRequest: there is no such file, or it cannot be read.
    """
    check_is_file(file)
    if file.suffix.lower() == NPZ:
        return npz_specs(file)
    shape = npy_shape(file)
    return () if shape is None else (InputSpec(shape),)


def arrays_of_file(file: Path, specs: Sequence[InputSpec]) -> list[Array]:
    """The inputs that a photo, a .npy array or a .npz archive gives.

    Raises:
        BadRequest: unreadable, or not what the inputs are.
    """
    check_is_file(file)
    if file.suffix.lower() == NPZ:
        return npz_arrays(file, specs)
    if len(specs) != 1 or specs[0].dtype != "float32":
        inputs = ", ".join(spec.text for spec in specs)
        raise BadRequest(
            f"--input {file} holds one array of real numbers; the inputs are {inputs}. "
            "Give a .npz archive: numpy.savez('inputs.npz', image=..., mask=...), by the names of the arguments."
        )
    return [parity_input(file, specs[0].shape)]


def noise_of(specs: Sequence[InputSpec], seed: int, severe: bool) -> dict[str, list[Array]]:
    """Inputs that any numpy makes again, by case; the first is drawn with the seed, each one with the next.

    Whole numbers and booleans are 0 or 1, since nothing tells which others an
    index may be; where noise is negated, they are swapped.
    """
    made = [_noise(spec, (seed + index) % _SEEDS, severe) for index, spec in enumerate(specs)]
    return {case: [noise[case] for noise in made] for case in made[0]}


def other_extents(
    arrays: Sequence[Array], dynamic_batch: bool, dynamic_size: bool, growth: tuple[int, int] | None
) -> dict[str, list[Array]]:
    """The cases of `OPEN_CASES` that are asked for, made of the first case.

    Args:
        growth: rows and columns that a larger map has more; None for a map of twice the size.

    Raises:
        BadRequest: the inputs have several batches or sizes, so that none can be left open for all.
    """
    cases: dict[str, list[Array]] = {}
    if dynamic_batch:
        _check_alike([array.shape[:1] for array in arrays], "--dynamic-batch", "axis 0 of every input is the batch")
        cases["larger_batch"] = [twice_the_batch(array) for array in arrays]
    if dynamic_size:
        maps = [array.shape[2:] for array in arrays if array.ndim == _MAP]
        _check_alike(maps, "--dynamic-size", "it is for maps BxCxHxW of one size")
        rows, columns = growth or maps[0]
        cases["larger_map"] = [larger_map(array, rows, columns) if array.ndim == _MAP else array for array in arrays]
    return cases


def _check_alike(extents: Sequence[tuple[int, ...]], option: str, rule: str) -> None:
    if len(set(extents)) != 1:
        found = ", ".join("x".join(map(str, part)) for part in extents) or "none"
        raise BadRequest(f"{option} was asked for; {rule}, and the inputs have {found}. Leave it out, or give others.")


def _noise(spec: InputSpec, seed: int, severe: bool) -> dict[str, Array]:
    import numpy as np

    if spec.dtype == "float32":
        return dict(noise_inputs(spec.shape, seed, severe))
    bits = np.random.RandomState(seed).randint(0, 2, spec.shape)
    return {"normal": bits.astype(spec.dtype), "negated": (1 - bits).astype(spec.dtype)}
