"""Where a fixed copy may be written, and writing it: whole and at once, over nothing that is not meant."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_attn.engines.whole_file import write_whole
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    import onnx

_SUFFIX = ".onnx"
_MANIFEST = "manifest.json"
_LARGEST = (1 << 31) - 1  # bytes; protobuf writes no longer message


def default_output(source: Path) -> Path:
    """MODEL.fixed.onnx beside MODEL.onnx."""
    name = source.name[: -len(_SUFFIX)] if source.name.endswith(_SUFFIX) else source.name
    return source.with_name(f"{name}.fixed{_SUFFIX}") if name else source / _SUFFIX


def check_source(source: Path) -> None:
    """Raises BadRequest for an artifact, or a file of one."""
    why = "its manifest vouches for its files by their hashes. Export it again for that target: `deploy-attn export`"
    if source.is_dir():
        raise BadRequest(f"{source} is a folder, and --fix takes one ONNX file; an artifact is not fixed: {why}.")
    if _is_vouched_for(source):
        raise BadRequest(f"{source} belongs to an artifact, which is not fixed: {why}.")


def check_output(place: Path, source: Path, model: onnx.ModelProto, force: bool) -> None:
    """Raises BadRequest unless a copy may be written at `place`; touches nothing."""
    else_where = "Choose another file with -o."
    if not os.path.lexists(place):
        folder = place.parent
        if not folder.is_dir():
            raise BadRequest(f"{place} cannot be written: {folder} is no folder. {else_where}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise BadRequest(f"{place} cannot be written: no permission in {folder}. {else_where}")
        return
    if not stat.S_ISREG(place.lstat().st_mode):
        raise BadRequest(f"{place} is no plain file, and only such a file is replaced. {else_where}")
    if os.path.samefile(place, source):
        raise BadRequest(f"{place} is the model itself, which --fix never overwrites. {else_where}")
    if any(os.path.samefile(place, file) for file in _weight_files(source, model)):
        raise BadRequest(f"{place} holds weights of {source}, which --fix never overwrites. {else_where}")
    if _is_vouched_for(place):
        raise BadRequest(f"{place} belongs to an artifact, whose manifest vouches for it. {else_where}")
    if not force:
        raise BadRequest(f"{place} exists already. Choose another file with -o, or replace it with --force.")
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise BadRequest(f"{place} cannot be replaced: no permission in {place.parent}. {else_where}")


def load_weights(source: Path, model: onnx.ModelProto) -> None:
    """Brings weights from other files into the model.

    Raises:
        BadRequest: with them it is over 2 GB, or they cannot be read.
    """
    import onnx

    size = model.ByteSize() + sum(_size(tensor) for tensor in _outside(model))
    if size > _LARGEST:
        raise BadRequest(
            f"{source} has {size / 1e9:.1f} GB with its weights: over 2 GB no copy can be written whole, nor run to "
            "prove it. Export it again in the form that the target reads."
        )
    try:
        onnx.load_external_data_for_model(model, str(source.parent))
    except Exception as error:  # the helper raises what the file system and its own checks raise
        raise BadRequest(f"{source}: its weights cannot be read: {error}.") from error


def write_fixed(place: Path, content: bytes, force: bool) -> None:
    """Writes a copy, whole or not at all.

    Raises:
        BadRequest: the file system refuses, or the file has appeared in the meantime.
    """
    place = Path(os.path.abspath(place))
    try:
        write_whole(place, content, replace=force)
    except FileExistsError as error:
        raise BadRequest(f"{place} has appeared meanwhile. Choose another file with -o.") from error
    except OSError as error:
        raise BadRequest(
            f"{place} cannot be written: {error.strerror or error}. Choose another file with -o."
        ) from error


def _is_vouched_for(file: Path) -> bool:
    """Whether a manifest beside a file, or beside what a link to it points to, lists it."""
    return any(_is_listed(path) for path in {Path(os.path.abspath(file)), Path(os.path.realpath(file))})


def _is_listed(file: Path) -> bool:
    try:
        manifest = json.loads(file.with_name(_MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    files = manifest.get("files") if isinstance(manifest, dict) else None
    return isinstance(files, dict) and file.name in files


def _weight_files(source: Path, model: onnx.ModelProto) -> Iterator[Path]:
    for tensor in _outside(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                yield source.parent / entry.value


def _outside(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    import onnx
    from onnx.external_data_helper import _get_all_tensors

    return (tensor for tensor in _get_all_tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL)


def _size(tensor: onnx.TensorProto) -> int:
    import math

    import onnx

    element: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    elements: int = math.prod(tensor.dims)
    return elements * max(1, element)
