"""Holds what a parity input may be, what is read from it, and that anything else is refused in words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deploy_attn.export.inputs import PHOTO_SUFFIXES, npy_shape, parity_input
from deploy_attn.jetson.errors import BadRequest

Array = np.ndarray[Any, Any]
Shape = tuple[int, int, int, int]

SHAPE: Shape = (1, 3, 4, 5)
NOT_NPY = r"cannot be read as a \.npy array"
NOT_A_PHOTO = "cannot be read as a PNG or JPEG photo"


def _noise(*shape: int) -> Array:
    return np.random.RandomState(5).standard_normal(shape)


def _npy(folder: Path, array: Array) -> Path:
    file = folder / "input.npy"
    np.save(file, array)
    return file


def _npy_of_header(folder: Path, header: str) -> Path:
    """A .npy file with this header and the data of a map of SHAPE."""
    padded = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    file = folder / "input.npy"
    data = np.zeros(SHAPE, np.float32).tobytes()
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + data)
    return file


def _photo(folder: Path, pixels: Array, name: str = "photo.png", mode: str | None = None, **options: Any) -> Path:
    file = folder / name
    image = Image.fromarray(pixels)
    if mode is not None:
        image = image.convert(mode, palette=Image.Palette.ADAPTIVE)
    image.save(file, **options)
    return file


def _gradient(height: int = 4, width: int = 5) -> Array:
    """Three smooth 8-bit planes that differ, none of them symmetric."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([10 + 120 * x + 40 * y, 200 - 100 * x - 30 * y, 200 * y + 20 * x], -1).astype(np.uint8)


# .npy


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", ">f4", "int8", "uint8", "int64", "uint16", "longdouble"]
)
def test_a_npy_file_of_numbers_is_read_as_float32(tmp_path: Path, dtype: str) -> None:
    array = (10 * _noise(*SHAPE)).astype(dtype) if "u" not in dtype else np.arange(60).reshape(SHAPE).astype(dtype)
    read = parity_input(_npy(tmp_path, array), SHAPE)
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, array.astype(np.float32))


def test_a_npy_file_without_a_batch_is_a_batch_of_one(tmp_path: Path) -> None:
    array = _noise(*SHAPE[1:])
    np.testing.assert_array_equal(parity_input(_npy(tmp_path, array), SHAPE), array.astype(np.float32)[None])


def test_a_npy_file_in_fortran_order_is_read_in_c_order(tmp_path: Path) -> None:
    array = np.asfortranarray(_noise(*SHAPE))
    read = parity_input(_npy(tmp_path, array), SHAPE)
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, array.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((1, 3, 5, 4), "1x3x5x4"),
        ((2, 3, 4, 5), "2x3x4x5"),
        ((3, 4, 6), "1x3x4x6"),
        ((1, 4, 4, 5), "1x4x4x5"),
    ],
)
def test_another_shape_than_the_export_is_refused_and_both_are_named(
    tmp_path: Path, shape: tuple[int, ...], found: str
) -> None:
    with pytest.raises(BadRequest, match=rf"holds {found}, the export is of 1x3x4x5. Set --shape {found}"):
        parity_input(_npy(tmp_path, _noise(*shape)), SHAPE)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.float64(1), id="a scalar"),
        pytest.param(np.zeros((1, 3, 0, 5)), id="no values"),
        pytest.param(np.zeros(SHAPE, bool), id="truth values"),
        pytest.param(np.zeros(SHAPE, np.complex64), id="complex"),
        pytest.param(np.full(SHAPE, "x"), id="text"),
        pytest.param(np.zeros(SHAPE, "datetime64[s]"), id="dates"),
        pytest.param(np.zeros(SHAPE, [("a", "f4"), ("b", "f4")]), id="records"),
    ],
)
def test_an_array_that_is_no_map_of_numbers_is_refused(tmp_path: Path, array: Array) -> None:
    with pytest.raises(BadRequest, match="must hold numbers of shape BxCxHxW or CxHxW"):
        parity_input(_npy(tmp_path, array), SHAPE)


@pytest.mark.parametrize("shape", [(4, 5), (1, 1, 3, 4, 5)], ids=str)
def test_an_array_of_other_axes_is_taken_where_its_shape_is_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = _npy(tmp_path, np.ones(shape))
    np.testing.assert_array_equal(parity_input(file, shape), np.ones(shape, np.float32))
    with pytest.raises(BadRequest, match="BxCxHxW or CxHxW, or of another one that --shape names"):
        npy_shape(file)
    with pytest.raises(BadRequest, match="the export is of"):
        parity_input(file, SHAPE)


@pytest.mark.parametrize(("value", "count"), [(np.nan, 1), (np.inf, 1), (-np.inf, 1), (1e39, 1), (1e38, 0)], ids=str)
def test_values_that_are_no_float32_numbers_are_counted_and_refused(tmp_path: Path, value: float, count: int) -> None:
    array = np.zeros(SHAPE)
    array[0, 1, 2, 3] = value
    file = _npy(tmp_path, array)
    if count == 0:
        assert parity_input(file, SHAPE)[0, 1, 2, 3] == np.float32(value)
        return
    with pytest.raises(BadRequest, match=f"holds {count} values that are NaN, Inf or beyond float32"):
        parity_input(file, SHAPE)


def _npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, np.zeros(SHAPE))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x93NUMPY", id="cut in the magic"),
        pytest.param(b"\x93NUMPY\x01\x00\x76\x00{'descr'", id="cut in the header"),
        pytest.param(b"not an array at all", id="text"),
        pytest.param(_npz_bytes(), id="a renamed .npz"),
        pytest.param(bytes(range(256)), id="bytes"),
    ],
)
def test_a_file_that_is_no_npy_array_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "input.npy"
    file.write_bytes(content)
    with pytest.raises(BadRequest, match=NOT_NPY):
        parity_input(file, SHAPE)


def test_a_npy_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    file = _npy(tmp_path, _noise(*SHAPE))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(BadRequest, match=NOT_NPY):
        parity_input(file, SHAPE)


class _Touches:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def test_an_array_of_objects_is_refused_and_not_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    file = tmp_path / "input.npy"
    np.save(file, np.array([[[_Touches(trap)]]], object), allow_pickle=True)
    with pytest.raises(BadRequest, match=NOT_NPY):
        parity_input(file, SHAPE)
    assert not trap.exists()


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 4, 5", id="an open bracket"),
        pytest.param("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 10000000, 100000)}", id="huge"),
        pytest.param("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 3, 4, 5)}", id="no integers"),
        pytest.param("{'descr': '<f4', 'fortran_order': False, b'shape': (1, 3, 4, 5)}", id="a key of bytes"),
        pytest.param("{'descr': '<f4', 'fortran_order': False}", id="no shape"),
        pytest.param("(" * 200, id="brackets"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(BadRequest, match=NOT_NPY):
        parity_input(_npy_of_header(tmp_path, header), SHAPE)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(changes=st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=3))
def test_whatever_a_header_holds_the_answer_is_an_array_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    file = _npy(tmp_path_factory.mktemp("npy"), _noise(*SHAPE).astype(np.float32))
    content = bytearray(file.read_bytes())
    for place, value in changes:
        content[place] = value
    file.write_bytes(content)
    try:
        assert parity_input(file, SHAPE).shape == SHAPE
    except BadRequest as refusal:
        assert str(file) in str(refusal)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        pytest.param(np.zeros((2, 3, 4, 5)), (2, 3, 4, 5), id="4-D"),
        pytest.param(np.zeros((3, 4, 5)), (1, 3, 4, 5), id="3-D"),
    ],
)
def test_the_shape_of_a_npy_file_is_known_before_it_is_asked_for(tmp_path: Path, array: Array, shape: Shape) -> None:
    assert npy_shape(_npy(tmp_path, array)) == shape


def test_other_files_have_no_shape_of_their_own(tmp_path: Path) -> None:
    assert npy_shape(_photo(tmp_path, _gradient())) is None
    assert npy_shape(tmp_path / "missing.npy") is None


def test_the_shape_of_a_broken_npy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest):
        npy_shape(_npy(tmp_path, np.zeros(3)))


# Photos


def test_a_photo_of_the_size_asked_for_is_its_rgb_planes_over_255(tmp_path: Path) -> None:
    pixels = _gradient()
    read = parity_input(_photo(tmp_path, pixels), SHAPE)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read[0], (pixels / np.float32(255)).astype(np.float32).transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["photo.png", "photo.PNG", "photo.jpg", "photo.JPEG"])
def test_png_and_jpeg_are_read_by_any_case_of_their_suffix(tmp_path: Path, name: str) -> None:
    pixels = _gradient(16, 20)
    read = parity_input(_photo(tmp_path, pixels, name), (1, 3, 16, 20))
    np.testing.assert_allclose(read[0], pixels.transpose(2, 0, 1) / 255, atol=0.12)


@pytest.mark.parametrize("channels", [1, 3, 64])
@pytest.mark.parametrize("size", [(4, 5), (1, 1), (9, 3), (64, 48)])
@pytest.mark.parametrize("batch", [1, 3])
def test_any_photo_becomes_the_shape_asked_for_the_batch_repeats_it(
    tmp_path: Path, batch: int, size: tuple[int, int], channels: int
) -> None:
    shape = (batch, channels, *size)
    read = parity_input(_photo(tmp_path, _gradient(7, 6)), shape)
    assert read.shape == shape
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    assert all(np.array_equal(read[0], image) for image in read)


def test_resizing_is_bilinear(tmp_path: Path) -> None:
    pixels = _gradient(8, 8)
    resized = Image.fromarray(pixels).resize((5, 4), Image.Resampling.BILINEAR)
    read = parity_input(_photo(tmp_path, pixels), SHAPE)
    np.testing.assert_array_equal(read[0].transpose(1, 2, 0), np.asarray(resized, np.float32) / np.float32(255))


def test_three_channels_reach_from_0_to_1(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0], pixels[1, 1] = (255, 0, 0), (255, 255, 255)
    read = parity_input(_photo(tmp_path, pixels), (1, 3, 2, 2))
    np.testing.assert_array_equal(read[0, :, 0, 0], [1, 0, 0])
    np.testing.assert_array_equal(read[0, :, 1, 1], [1, 1, 1])
    assert (read.min(), read.max()) == (0, 1)


def test_one_channel_is_the_luminance(tmp_path: Path) -> None:
    pixels = np.zeros((1, 4, 3), np.uint8)
    pixels[0, :3] = 255 * np.eye(3, dtype=np.uint8)
    pixels[0, 3] = 255
    read = parity_input(_photo(tmp_path, pixels), (1, 1, 1, 4))
    np.testing.assert_allclose(read[0, 0, 0], [0.299, 0.587, 0.114, 1], atol=1 / 255)


def test_other_channel_counts_are_fixed_mixtures_with_weights_of_length_1(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 3), np.uint8)
    pixels[0] = 255 * np.eye(3, dtype=np.uint8)
    file = _photo(tmp_path, pixels)
    weights = parity_input(file, (1, 64, 1, 3))[0, :, 0]  # channel, colour
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1, rtol=1e-6)
    assert np.linalg.matrix_rank(weights) == 3
    assert len(np.unique(weights.round(5), axis=0)) == 64
    np.testing.assert_array_equal(weights, parity_input(file, (1, 64, 1, 3))[0, :, 0])
    np.testing.assert_array_equal(weights[:5], parity_input(file, (1, 5, 1, 3))[0, :, 0])


def test_the_mixtures_are_the_same_in_every_release(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 3), np.uint8)
    pixels[0] = 255 * np.eye(3, dtype=np.uint8)
    first = parity_input(_photo(tmp_path, pixels), (1, 2, 1, 3))[0, :, 0]
    np.testing.assert_allclose(first, [[0.8577, 0.1946, 0.4759], [0.7284, 0.6071, -0.3177]], atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        pytest.param("L", "photo.png", {}, id="grey"),
        pytest.param("LA", "photo.png", {}, id="grey with alpha"),
        pytest.param("RGBA", "photo.png", {}, id="colour with alpha"),
        pytest.param("P", "photo.png", {}, id="palette"),
        pytest.param("P", "photo.png", {"transparency": bytes(range(0, 250, 2))}, id="palette with alpha"),
        pytest.param("RGB", "photo.png", {"transparency": (1, 2, 3)}, id="colour with a transparent one"),
        pytest.param("L", "photo.jpg", {"quality": 100}, id="grey JPEG"),
        pytest.param("CMYK", "photo.jpg", {"quality": 100}, id="CMYK JPEG"),
    ],
)
def test_every_kind_of_photo_shows_the_same_picture(
    tmp_path: Path, mode: str, name: str, options: dict[str, Any]
) -> None:
    grey = np.repeat((15 * np.arange(16, dtype=np.uint8)).reshape(4, 4, 1), 3, axis=2)
    read = parity_input(_photo(tmp_path, grey, name, mode, **options), (1, 3, 4, 4))
    np.testing.assert_allclose(read[0], grey.transpose(2, 0, 1) / 255, atol=0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_16_bit_photo_is_scaled_to_0_1_not_cut_off(tmp_path: Path, channels: int) -> None:
    grey = np.linspace(0, 65535, 16).reshape(4, 4).astype(np.uint16)
    read = parity_input(_photo(tmp_path, grey), (1, channels, 4, 4))
    for plane in read[0]:
        np.testing.assert_allclose(plane, grey / 65535, atol=0.005)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        pytest.param(1, lambda image: image, id="upright"),
        pytest.param(2, lambda image: image[:, ::-1], id="mirrored"),
        pytest.param(3, lambda image: image[::-1, ::-1], id="upside down"),
        pytest.param(6, lambda image: np.rot90(image, -1), id="turned left"),
        pytest.param(8, lambda image: np.rot90(image), id="turned right"),
    ],
)
@pytest.mark.parametrize("name", ["photo.jpg", "photo.png"])
def test_a_photo_is_turned_as_its_exif_says(tmp_path: Path, name: str, orientation: int, turn: Any) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :16] = 250  # bright top left
    pixels[:16, 16:] = 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = parity_input(_photo(tmp_path, pixels, name, exif=exif), (1, 1, 32, 32))[0, 0]
    np.testing.assert_allclose(read[8::16, 8::16], turn(pixels)[8::16, 8::16, 0] / 255, atol=0.03)


@pytest.mark.parametrize("suffix", PHOTO_SUFFIXES)
@pytest.mark.parametrize(
    "content",
    [pytest.param(b"", id="empty"), pytest.param(b"not a photo", id="text"), pytest.param(b"GIF89a", id="GIF")],
)
def test_a_file_that_is_no_photo_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"photo{suffix}"
    file.write_bytes(content)
    with pytest.raises(BadRequest, match=NOT_A_PHOTO):
        parity_input(file, SHAPE)


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg"])
def test_a_photo_that_ends_too_early_is_refused(tmp_path: Path, name: str) -> None:
    file = _photo(tmp_path, np.random.RandomState(0).randint(0, 255, (64, 64, 3)).astype(np.uint8), name)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BadRequest, match=NOT_A_PHOTO):
        parity_input(file, SHAPE)


def test_another_format_under_the_name_of_a_png_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    Image.fromarray(_gradient()).save(file, format="BMP")
    with pytest.raises(BadRequest, match=NOT_A_PHOTO):
        parity_input(file, SHAPE)


@pytest.mark.parametrize("name", ["photo.bmp", "photo.webp", "input.npz", "input.txt", "input"])
def test_another_suffix_is_refused_and_the_possible_ones_are_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(b"anything")
    with pytest.raises(BadRequest, match=r"suffix; it takes \.png, \.jpg, \.jpeg, \.npy or \.npz"):
        parity_input(file, SHAPE)


@pytest.mark.parametrize("name", ["missing.npy", "missing.png", "missing"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match=f"{name}: no such file"):
        parity_input(tmp_path / name, SHAPE)


def test_a_folder_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(BadRequest, match="a folder, not a file"):
        parity_input(tmp_path / "folder.npy", SHAPE)
    assert npy_shape(tmp_path / "folder.npy") is None
