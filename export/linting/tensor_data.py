"""Every weight is as long as its shape says, in the file or in one beside it; nothing is loaded."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.export.linting.graph import subgraphs
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    import onnx

# TensorProto.DataType -> bits of one element in raw data.
_BITS: Mapping[int, int] = MappingProxyType(
    {
        **dict.fromkeys((1, 6, 12), 32),
        **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
        **dict.fromkeys((4, 5, 10, 16), 16),
        **dict.fromkeys((7, 11, 13, 14), 64),
        **dict.fromkeys((21, 22, 23), 4),
        **dict.fromkeys((25, 26), 2),
        **dict.fromkeys((27, 28), 6),
        15: 128,
    }
)
# Those whose values do not stand in int32_data where they are not raw.
_FIELDS: Mapping[int, str] = MappingProxyType(
    {
        1: "float_data",
        7: "int64_data",
        8: "string_data",
        11: "double_data",
        12: "uint64_data",
        13: "uint64_data",
        14: "float_data",
        15: "double_data",
    }
)
_STRING = 8
_COMPLEX = (14, 15)  # two values each
_NO_TENSORS = frozenset((1, 2, 3, 6, 7, 8))  # AttributeProto: FLOAT, INT, STRING, and lists of them
_SHOWN = 80  # characters of what a file says
_MOST_ELEMENTS = 1 << 62


def check_tensors(path: Path, model: onnx.ModelProto) -> None:
    """Holds each tensor's data, wherever it lies, against its shape and type.

    Raises:
        BadRequest: data is missing, too short, too long, or in a file that is
            not there or not in the model's folder.
    """
    files = _WeightFiles(path)
    for tensor in _tensors(model):
        problem = _problem(tensor, files)
        if problem:
            name = tensor.name.decode(errors="replace") if isinstance(tensor.name, bytes) else tensor.name
            raise BadRequest(f"{path}: tensor {name!r} {problem}")


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _of_node(node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for item in node.attribute:
        if item.type in _NO_TENSORS:
            continue
        if item.HasField("t"):
            yield item.t
        yield from item.tensors
        for sparse in (*([item.sparse_tensor] if item.HasField("sparse_tensor") else []), *item.sparse_tensors):
            yield from (sparse.values, sparse.indices)
    for subgraph in subgraphs(node):
        yield from _of_graph(subgraph)


def _problem(tensor: onnx.TensorProto, files: _WeightFiles) -> str | None:
    """What is wrong with a tensor's data, as the rest of a sentence."""
    import onnx

    kind = tensor.data_type
    if kind not in _BITS and kind != _STRING:
        return f"has type {kind}, which onnx {onnx.__version__} does not know; it is damaged, or upgrade onnx."
    if any(extent < 0 for extent in tensor.dims) or math.prod(e for e in tensor.dims if e) > _MOST_ELEMENTS:
        return f"has an impossible shape, {_shape(tensor)}. Copy or export it again."
    if tensor.HasField("segment"):
        return "comes in segments, which no engine reads. Export it again."
    count = math.prod(tensor.dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return files.problem(tensor, _raw_bytes(kind, count))
    if tensor.HasField("raw_data"):
        wanted, found, unit = _raw_bytes(kind, count), len(tensor.raw_data), "bytes"
    else:
        wanted = _entries(kind, count)
        found, unit = len(getattr(tensor, _FIELDS.get(kind, "int32_data"))), "values"
    if wanted == found:
        return None
    return (
        f"of shape {_shape(tensor)} takes {wanted:,} {unit} and has {found:,}; "
        "it was cut short or edited. Copy or export it again."
    )


def _raw_bytes(kind: int, count: int) -> int:
    return -(-count * _BITS.get(kind, 0) // 8)


def _entries(kind: int, count: int) -> int:
    """How many entries of its field a tensor takes: types under 6 bits share one byte of an entry."""
    if kind in _COMPLEX:
        return 2 * count
    bits = _BITS.get(kind, 8)
    return -(-count * bits // 8) if bits < 6 else count


def _shape(tensor: onnx.TensorProto) -> str:
    return "x".join(map(str, tensor.dims)) or "1"


class _WeightFiles:
    """The files beside a model that hold its weights, each looked at once."""

    def __init__(self, model: Path) -> None:
        self._folder = model.parent
        self._sizes: dict[str, int | str] = {}

    def problem(self, tensor: onnx.TensorProto, wanted: int) -> str | None:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location")
        if not isinstance(location, str) or not location:
            return "lies in another file, and the model does not say in which. Export it again."
        if location not in self._sizes:
            self._sizes[location] = self._size(location)
        size, named = self._sizes[location], repr(location[:_SHOWN])
        if isinstance(size, str):
            return f"lies in {named}, {size}"
        numbers = [entries.get("offset", "0"), entries.get("length", str(wanted))]
        if not all(isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20 for text in numbers):
            shown = f"offset {numbers[0][:_SHOWN]!r}, length {numbers[1][:_SHOWN]!r}"
            return f"lies in {named} at {shown}, which are no whole numbers. Export it again."
        offset, length = map(int, numbers)
        if offset + length > size:
            return (
                f"lies in {named} from byte {offset:,} to {offset + length:,}, and the file ends at {size:,}; "
                "it was cut short. Copy it again."
            )
        if length != wanted:
            return f"of shape {_shape(tensor)} takes {wanted:,} bytes and has {length:,} in {named}."
        return None

    def _size(self, location: str) -> int | str:
        """A file's bytes, or why it is not read."""
        outside = (
            "which is outside the model's folder, and such files are not read. "
            "Save the model with its weights beside it."
        )
        if os.path.isabs(location):
            return outside
        try:
            folder = os.path.realpath(self._folder)
            file = os.path.realpath(os.path.join(folder, location))
            if os.path.commonpath((folder, file)) != folder:
                return outside
            status = os.stat(file)
        except FileNotFoundError:
            return f"which is not in {self._folder}. Copy it there, under that name."
        except (OSError, ValueError) as error:
            return f"which cannot be read: {getattr(error, 'strerror', None) or error}."
        if not stat.S_ISREG(status.st_mode):
            return "which is not a plain file."
        return status.st_size
