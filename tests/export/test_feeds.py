"""Holds that every input of every parity case is what was specified: noise, files, other extents."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy_attn.export.feeds import arrays_of_file, noise_of, other_extents, specs_of_file
from deploy_attn.export.input_spec import InputSpec, specs_of
from deploy_attn.export.inputs import noise_inputs
from deploy_attn.jetson.errors import BadRequest

Array = np.ndarray[Any, Any]
IMAGE = np.random.RandomState(0).standard_normal((2, 3, 4, 5))
IDS = np.array([[1, 40, 7]] * 2)


def _npz(folder: Path, *by_place: Array, **by_name: Array) -> Path:
    np.savez(folder / "in.npz", *by_place, **by_name)  # type: ignore[arg-type]
    return folder / "in.npz"


def test_the_first_input_is_the_noise_of_one_input_and_the_next_has_the_next_seed() -> None:
    cases = noise_of(specs_of(["2x3x4x5", "2x7"]), 2**32 - 1, severe=False)
    assert list(cases) == ["normal", "negated"]
    for case, (first, second) in cases.items():
        np.testing.assert_array_equal(first, noise_inputs((2, 3, 4, 5), 2**32 - 1, severe=False)[case])
        np.testing.assert_array_equal(second, noise_inputs((2, 7), 0, severe=False)[case])


@pytest.mark.parametrize("dtype", ["int64", "int32", "bool"])
def test_whole_numbers_are_0_and_1_and_swapped(dtype: str) -> None:
    cases = noise_of([InputSpec((40,), dtype=dtype)], 3, severe=False)
    normal, negated = cases["normal"][0], cases["negated"][0]
    assert normal.dtype == negated.dtype == dtype
    assert set(normal.tolist()) == {0, 1}
    np.testing.assert_array_equal(normal.astype(int) + negated.astype(int), np.ones(40))


def test_an_archive_names_inputs_and_their_types(tmp_path: Path) -> None:
    file = _npz(tmp_path, IMAGE, ids=IDS, mask=IDS > 3, half=IDS.astype(np.float16), small=IDS.astype(np.uint8))
    specs = specs_of_file(file)
    assert [spec.text for spec in specs] == ["2x3x4x5", "ids=2x3:int64", "mask=2x3:bool", "half=2x3", "small=2x3"]
    arrays = arrays_of_file(file, specs)
    assert [array.dtype.name for array in arrays] == ["float32", "int64", "bool", "float32", "float32"]
    np.testing.assert_array_equal(arrays[0], IMAGE.astype(np.float32))
    np.testing.assert_array_equal(arrays[1], IDS)


def test_arrays_without_names_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    arrays = [np.full((1, index + 1), index, np.float32) for index in range(12)]
    specs = specs_of_file(_npz(tmp_path, *arrays))
    assert [spec.shape[1] for spec in specs] == list(range(1, 13))
    assert [float(array[0, 0]) for array in arrays_of_file(tmp_path / "in.npz", specs)] == list(range(12))


def test_the_only_array_is_the_only_input_whatever_it_is_called(tmp_path: Path) -> None:
    (array,) = arrays_of_file(_npz(tmp_path, picture=IMAGE), [InputSpec(IMAGE.shape)])
    np.testing.assert_array_equal(array, IMAGE.astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "shapes", "said"),
    [
        ({"x": IMAGE, "y": IDS}, ["x=2x3x4x5"], "holds x, y; the inputs of the export are x"),
        ({"x": IMAGE}, ["x=2x3x4x5", "y=2x3"], "holds x; the inputs of the export are x, y"),
        ({"x": IMAGE}, ["2x3x4x6"], "the export is of 2x3x4x6"),
        ({"x": IMAGE}, ["2x3x4x5:int64"], "which is no int64"),
        ({"x": IDS}, ["2x3:bool"], "which is no bool"),
        ({"x": IDS * 2**40}, ["2x3:int32"], "beyond int32"),
        ({"x": IMAGE * np.nan}, ["2x3x4x5"], "NaN, Inf"),
        ({"x": IMAGE * 1e300}, ["2x3x4x5"], "beyond float32"),
        ({"x": IMAGE.astype(complex)}, ["2x3x4x5"], "which is no float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_archive_of_something_else_is_refused(
    tmp_path: Path, arrays: dict[str, Array], shapes: list[str], said: str
) -> None:
    with pytest.raises(BadRequest, match=said):
        arrays_of_file(_npz(tmp_path, **arrays), specs_of(shapes))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as a .npz archive"),
        (b"PK\x03\x04 and more", "cannot be read as a .npz archive"),
        ({}, "holds no arrays"),
        ({"readme.txt": b"text"}, "cannot be read as a .npz archive"),
        ({"x.npy": b"\x93NUMPY"}, "cannot be read as a .npz archive"),
    ],
    ids=["empty", "cut off", "no arrays", "text inside", "half an array"],
)
def test_a_file_that_is_no_archive_of_arrays_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    file = tmp_path / "in.npz"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    with pytest.raises(BadRequest, match=said):
        specs_of_file(file)


def test_objects_in_an_archive_are_not_unpickled(tmp_path: Path) -> None:
    file = _npz(tmp_path, x=np.array([object()]))
    with pytest.raises(BadRequest, match="allow_pickle=False"):
        specs_of_file(file)


@pytest.mark.parametrize("shapes", [["1x3x4x5", "1x4"], ["1x4:int64"]], ids=str)
def test_a_photo_or_an_array_is_one_input_of_real_numbers(tmp_path: Path, shapes: list[str]) -> None:
    np.save(tmp_path / "in.npy", IMAGE)
    with pytest.raises(BadRequest, match=r"Give a \.npz archive"):
        arrays_of_file(tmp_path / "in.npy", specs_of(shapes))


@pytest.mark.parametrize("name", ["none.npz", "none.npy", "none.png"])
def test_a_file_that_is_not_there_is_said_before_its_shape_is_asked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match="no such file"):
        specs_of_file(tmp_path / name)


def test_other_extents_grow_what_is_open_and_nothing_else() -> None:
    arrays = [IMAGE, IDS]
    cases = other_extents(arrays, dynamic_batch=True, dynamic_size=True, growth=(2, 3))
    assert [array.shape for array in cases["larger_batch"]] == [(4, 3, 4, 5), (4, 3)]
    assert [array.shape for array in cases["larger_map"]] == [(2, 3, 6, 8), (2, 3)]
    assert other_extents(arrays, dynamic_batch=False, dynamic_size=True, growth=None)["larger_map"][0].shape[2:] == (
        8,
        10,
    )
    assert other_extents(arrays, dynamic_batch=False, dynamic_size=False, growth=None) == {}
    tokens = np.zeros((2, 4, 5), np.float32)
    assert other_extents([IMAGE, tokens], False, True, growth=(2, 3))["larger_map"][1] is tokens


@pytest.mark.parametrize(
    ("shapes", "batch", "said"),
    [
        ([(2, 3), (3, 3)], True, "axis 0 of every input is the batch, and the inputs have 2, 3"),
        ([(2, 3, 4, 5), (2, 3, 4, 6)], False, "maps BxCxHxW of one size, and the inputs have 4x5, 4x6"),
        ([(2, 3)], False, "the inputs have none"),
    ],
)
def test_extents_that_cannot_be_left_open_together_are_refused(
    shapes: list[tuple[int, ...]], batch: bool, said: str
) -> None:
    with pytest.raises(BadRequest, match=said):
        other_extents([np.zeros(shape) for shape in shapes], batch, not batch, None)
