"""Parity inputs: seeded noise, a photo, or an array from a file."""

from __future__ import annotations

import tokenize
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.noise import larger_map as larger_map
from deploy_attn.jetson.noise import noise_inputs as noise_inputs
from deploy_attn.jetson.noise import twice_the_batch as twice_the_batch

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from deploy_attn.modules.catalogue import Shape

    FloatArray = np.ndarray[Any, np.dtype[np.float32]]

PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg")
_PROJECTION_SEED = 0
_MAP = 4  # axes


def parity_input(file: Path, shape: tuple[int, ...]) -> FloatArray:
    """Reads a photo as `b c h w`, or a .npy file of any shape, in float32.

    A photo is turned upright (EXIF), converted to RGB, resized to h x w
    (bilinear) and scaled to 0..1. One channel: its luminance; three: RGB; any
    other number: RGB projected by a fixed matrix of unit rows, so that the
    channels are different mixtures. The batch holds the photo b times.

    Raises:
        BadRequest: unreadable file, another shape than asked for, NaN or Inf.
    """
    check_is_file(file)
    suffix = file.suffix.lower()
    if suffix == ".npy":
        return _from_npy(file, shape)
    if suffix in PHOTO_SUFFIXES:
        return _from_photo(file, shape)
    raise BadRequest(f"--input {file}: {suffix or 'no'} suffix; it takes .png, .jpg, .jpeg, .npy or .npz.")


def check_is_file(file: Path) -> None:
    """Raises BadRequest where there is no file to read an input from."""
    if not file.is_file():
        found = "a folder, not a file" if file.is_dir() else "no such file"
        raise BadRequest(f"--input {file}: {found}. It takes a PNG or JPEG photo, a .npy array, or a .npz archive.")


def npy_shape(file: Path) -> Shape | None:
    """The shape `b c h w` of a .npy file (a missing batch is 1), None if the file is another kind."""
    if file.suffix.lower() != ".npy" or not file.is_file():
        return None
    array = _load_npy(file)
    if array.ndim not in (3, 4):
        raise _unfit(file, array)
    *batch, channels, height, width = array.shape
    return (batch[0] if batch else 1, channels, height, width)


def _from_npy(file: Path, shape: tuple[int, ...]) -> FloatArray:
    import numpy as np

    array = _load_npy(file)
    if array.ndim == len(shape) - 1 == _MAP - 1:
        array = array[None]
    if array.shape != shape:
        found, wanted = "x".join(map(str, array.shape)), "x".join(map(str, shape))
        raise BadRequest(f"--input {file} holds {found}, the export is of {wanted}. Set --shape {found}.")
    with np.errstate(over="ignore"):
        values: FloatArray = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise BadRequest(
            f"--input {file} holds {count} values that are NaN, Inf or beyond float32; parity needs numbers."
        )
    return values


def _load_npy(file: Path) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        with file.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python 2, that headers of its time took longer to read
            array: np.ndarray[Any, Any] = np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, TypeError, OSError, EOFError, MemoryError, tokenize.TokenError) as error:
        raise BadRequest(f"--input {file} cannot be read as a .npy array: {error}.") from error
    if array.ndim == 0 or array.dtype.kind not in "fiu" or array.size == 0:
        raise _unfit(file, array)
    return array


def _unfit(file: Path, array: np.ndarray[Any, Any]) -> BadRequest:
    return BadRequest(
        f"--input {file} holds {array.dtype} of shape {array.shape}; it must hold numbers of shape BxCxHxW or CxHxW, "
        "or of another one that --shape names."
    )


def _from_photo(file: Path, shape: tuple[int, ...]) -> FloatArray:
    import numpy as np
    from PIL import Image, ImageOps

    if len(shape) != _MAP:
        raise BadRequest(f"--input {file} is a photo, a map of BxCxHxW; the export is of {'x'.join(map(str, shape))}.")
    batch, channels, height, width = shape
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as opened:
            upright = _in_8_bits(ImageOps.exif_transpose(opened))
            sized = upright.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadRequest(f"--input {file} cannot be read as a PNG or JPEG photo: {error}.") from error
    image = sized.convert("L") if channels == 1 else sized
    planes = np.asarray(image, dtype=np.float32).reshape(height, width, -1).transpose(2, 0, 1) / np.float32(255)
    if channels not in (1, 3):
        planes = np.tensordot(_projection(channels), planes, axes=1)
    image_batch: FloatArray = np.repeat(planes[None].astype(np.float32), batch, axis=0)
    return image_batch


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit greys, which Pillow would cut off at 255; reads palettes with their transparency."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image, dtype=np.float64) / 257).round().astype(np.uint8))
    return image.convert("RGBA") if image.mode == "P" else image


def _projection(channels: int) -> FloatArray:
    """A fixed `channels 3` matrix whose rows have length 1."""
    import numpy as np

    rows = np.random.RandomState(_PROJECTION_SEED).standard_normal((channels, 3))
    projection: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return projection
