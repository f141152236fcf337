"""The reference as a capsule has it: inputs as what makes them again where that can be, large outputs thinned.

A description in JSON values tells what is not kept in arrays: `noise`, which inputs
are made from, and by case the recipes of its inputs and, of each output in order,
shape and unit where it is thinned, else null. The arrays are CASE/inputs/NAME and
CASE/outputs/NAME as in an artifact, CASE/sample/NAME and CASE/sums/NAME of thinned
outputs, and noise/positions and noise/values, see `noise.close_calls`.
"""

import hashlib
import io
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from .artifact import Case, arrays_of, open_npz
from .errors import BadRequest
from .noise import Rounded, close_calls, larger_map, noise_inputs, twice_the_batch
from .thinning import LEAST, SAMPLED, Thinned, sum_count, thin

_NOISE, _TWICE, _LARGER = "noise", "twice_the_batch", "larger_map"

_Arrays = Dict[str, np.ndarray]


class Packed(NamedTuple):
    """Parity cases as a capsule holds them: an .npz, and what is to be known to read it."""

    content: bytes
    description: Dict[str, Any]


def pack(cases: Sequence[Case], seed: Optional[int]) -> Packed:
    """The cases in few bytes, from which `unpack` gives the same inputs to the last bit.

    Args:
        cases: of an artifact, the first with the input that others may be made from.
        seed: that the inputs are thought to be made from. It is tried, not trusted.
    """
    arrays: Dict[str, Any] = {}
    noise = None if seed is None else _noise_of(cases, seed, arrays)
    made = _made_noise(noise, arrays)
    described = {}
    for case in cases:
        recipes: Dict[str, Any] = {}
        for name, array in case.inputs.items():
            recipe = _recipe(case.name, array, cases[0].inputs.get(name), made)
            if recipe is None:
                arrays["{}/inputs/{}".format(case.name, name)] = array
            else:
                recipes[name] = {"recipe": recipe, "sha256": _sha256(array)}
        described[case.name] = {"inputs": recipes, "outputs": _described_outputs(case, arrays)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return Packed(buffer.getvalue(), {"noise": noise, "cases": described})


def unpack(stream: Any, description: Mapping[str, Any], names: Sequence[str]) -> List[Case]:
    """The cases of these names.

    Raises:
        BadRequest: an input that was made again is not the one that was bundled.
        Others, over contents that `pack` did not write: those of `artifact.UNREADABLE`, and TypeError.
    """
    with open_npz(stream) as arrays:
        made = _made_noise(description["noise"], arrays)
        cases: List[Case] = []
        for name in names:
            described = description["cases"][name]
            inputs = arrays_of(arrays, "{}/inputs/".format(name))
            for key, one in described["inputs"].items():
                first = cases[0].inputs.get(key) if cases else None
                inputs[key] = _checked(_from_recipe(one["recipe"], first, made), one["sha256"], name, key)
            outputs = arrays_of(arrays, "{}/outputs/".format(name))
            expected = {
                key: outputs[key] if one is None else _thinned(arrays, name, key, one)
                for key, one in described["outputs"].items()
            }
            if not inputs or not expected:
                raise KeyError(name)
            cases.append(Case(name, inputs, outputs, expected))
    return cases


def _noise_of(cases: Sequence[Case], seed: int, arrays: _Arrays) -> Optional[Dict[str, Any]]:
    """What `noise_inputs` takes to make the first input; None where that is no such noise."""
    first = next(iter(cases[0].inputs.values()))
    if first.ndim != 4 or first.dtype != np.float32:
        return None
    noise = {"shape": list(first.shape), "seed": seed, "severe": all(case.name != "negated" for case in cases)}
    positions = close_calls(first.shape, seed)
    found: _Arrays = {"noise/positions": positions, "noise/values": first.reshape(-1)[positions]}
    if not _same(_made_noise(noise, found)["normal"], first):
        return None
    arrays.update(found)
    return noise


def _made_noise(noise: Optional[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> _Arrays:
    if noise is None:
        return {}
    rounded = Rounded(arrays["noise/positions"], arrays["noise/values"])
    return noise_inputs(noise["shape"], noise["seed"], noise["severe"], rounded)


def _recipe(case: str, array: np.ndarray, first: Optional[np.ndarray], made: _Arrays) -> Optional[List[Any]]:
    """The recipe that gives an array to the last bit; None where none does."""
    recipes: List[List[Any]] = [[_NOISE, case]] if case in made else []
    if first is not None and first.ndim == array.ndim == 4:
        rows, columns = (larger - smaller for larger, smaller in zip(array.shape[2:], first.shape[2:]))
        recipes += [[_LARGER, rows, columns]] if min(rows, columns) >= 0 < max(rows, columns) else [[_TWICE]]
    return next((recipe for recipe in recipes if _same(_from_recipe(recipe, first, made), array)), None)


def _from_recipe(recipe: Sequence[Any], first: Optional[np.ndarray], made: Mapping[str, np.ndarray]) -> np.ndarray:
    """The array that a recipe makes, of the noise or of the same input in the first case."""
    if recipe[0] == _NOISE:
        return made[recipe[1]]
    if first is None:
        raise ValueError("the first case is made from none")
    if recipe[0] == _TWICE:
        return twice_the_batch(first)
    if recipe[0] == _LARGER:
        return larger_map(first, *recipe[1:])
    raise ValueError("unknown recipe {!r}".format(recipe[0]))


def _checked(array: np.ndarray, sha256: str, case: str, name: str) -> np.ndarray:
    if _sha256(array) != sha256:
        raise BadRequest(
            "Input {!r} of case {!r} could not be made again: numpy {} here draws other numbers than numpy did where "
            "it was bundled. Run this with another numpy; or export with --input FILE.npy, whose numbers a capsule "
            "keeps as they are, and bundle that.".format(name, case, np.__version__)
        )
    return array


def _described_outputs(case: Case, arrays: _Arrays) -> Dict[str, Any]:
    """Puts the outputs among the arrays; shape and unit of those that were thinned, None for the others."""
    described: Dict[str, Any] = {}
    for name, array in case.outputs.items():
        if array.size < LEAST or not np.isfinite(array).all():
            arrays["{}/outputs/{}".format(case.name, name)] = array
            described[name] = None
            continue
        kept = thin(array)
        arrays["{}/sample/{}".format(case.name, name)] = kept.sample
        arrays["{}/sums/{}".format(case.name, name)] = kept.sums
        described[name] = {"shape": list(kept.shape), "unit": kept.unit}
    return described


def _thinned(arrays: Mapping[str, np.ndarray], case: str, name: str, described: Mapping[str, Any]) -> Thinned:
    sample, sums = (arrays["{}/{}/{}".format(case, part, name)] for part in ("sample", "sums"))
    found = Thinned(tuple(described["shape"]), sample, sums, described["unit"])
    if (sample.shape, sums.shape) != ((SAMPLED,), (sum_count(found.size),)):
        raise ValueError("output {!r} of case {!r} was thinned in another way".format(name, case))
    return found


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
