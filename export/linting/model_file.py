"""Reading an ONNX file of unknown origin: one clear refusal for each way in which it can be none.

Protobuf reads much that is no model: a text may parse as an empty message, and
a file that ends between two fields as a smaller one. What is read is therefore
held against what ONNX asks of a graph. Weights in other files are not loaded.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_attn.export.linting.order import check_order
from deploy_attn.export.linting.tensor_data import check_tensors
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    import onnx

_LARGEST = (1 << 31) - 1  # bytes; protobuf reads no longer message

# Domains of operators that an engine of this package knows; a model's own functions come on top.
_KNOWN_DOMAINS = frozenset(
    (
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "com.microsoft",
        "com.microsoft.nchwc",
        "trt.plugins",
    )
)
# Where in a file, what stands there, and what that makes it.
_OTHER_FORMATS = (
    (0, b"PK\x03\x04", "a zip archive, as torch.save and numpy write"),
    (0, b"\x80\x02", "a Python pickle, as torch.save wrote before 1.6"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"ftrt", "a TensorRT engine"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, and `git lfs pull` fetches the model"),
    (4, b"ORTM", "in onnxruntime's own format"),
    (4, b"TFL3", "a TensorFlow Lite model"),
)


def read_model(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file, without its weights in other files.

    Raises:
        BadRequest: no such file, not an ONNX file, cut short, over 2 GB, no
            nodes, a cycle, a node of a domain that no engine here knows, or
            weights in other files that are missing or lie elsewhere.
    """
    model = _parsed(path, _content(path))
    _check_model(path, model)
    _check_domains(path, model)
    check_order(path, model)
    check_tensors(path, model)
    return model


def _content(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BadRequest(f"{path} is a folder, not an ONNX file.")
        if not stat.S_ISREG(status.st_mode):
            raise BadRequest(f"{path} is not a plain file.")
        if status.st_size > _LARGEST:
            raise BadRequest(
                f"{path} has {status.st_size / 1e9:.1f} GB, and protobuf reads no file over 2 GB. Save the model with "
                "its weights in another file: onnx.save(model, file, save_as_external_data=True)."
            )
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadRequest(f"{path} does not exist. Name an ONNX file, or a folder that `export` wrote.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadRequest(f"{path} cannot be read: {reason}.") from error
    if not content:
        raise BadRequest(f"{path} is empty.")
    return content


def _parsed(path: Path, content: bytes) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    for start, magic, what in _OTHER_FORMATS:
        if content[start : start + len(magic)] == magic:
            raise BadRequest(f"{path} is not an ONNX file: it is {what}.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise BadRequest(
            f"{path} is not an ONNX file, or one that was cut short: protobuf cannot read its "
            f"{len(content):,} bytes. Copy or export it again."
        ) from error
    return model


def _check_model(path: Path, model: onnx.ModelProto) -> None:
    """Holds what parsed against what every model has."""
    lacking = [
        what
        for what, there in (
            ("an IR version", model.ir_version > 0),
            ("a graph", model.HasField("graph")),
            ("an opset", bool(model.opset_import)),
        )
        if not there
    ]
    if lacking:
        raise BadRequest(
            f"{path} is not an ONNX model, or one that was cut short: it has not {', nor '.join(lacking)}. "
            "Copy or export it again."
        )
    if not model.graph.node:
        raise BadRequest(f"{path} has no nodes: it computes nothing, and no engine can be made of it.")
    if not model.graph.output:
        raise BadRequest(f"{path} has no outputs: it was cut short, or its outputs were not declared. Export it again.")


def _check_domains(path: Path, model: onnx.ModelProto) -> None:
    from deploy_attn.export.linting.graph import label, nodes_of

    own = {function.domain for function in model.functions}
    imports = {item.domain for item in model.opset_import}
    bodies = [(imports, nodes_of(model.graph))]
    for function in model.functions:
        bodies.append((imports | {item.domain for item in function.opset_import}, iter(function.node)))
    for imported, nodes in bodies:
        known = imported & (_KNOWN_DOMAINS | own)
        known |= {"", "ai.onnx"} if known & {"", "ai.onnx"} else set()  # two names of one domain
        for node in nodes:
            if node.domain not in known:
                what = f"{path}: node {label(node)!r} is {node.op_type!r} of domain {node.domain!r}, "
                raise BadRequest(what + _why_unknown(node.domain in _KNOWN_DOMAINS | own))


def _why_unknown(known: bool) -> str:
    if known:
        return "of which the model imports no opset; it was cut short, or edited by hand. Export it again."
    return (
        "which neither ONNX, onnxruntime nor TensorRT knows, and no function of the model defines it. "
        "Export it from operators of ONNX, or as a plugin of domain 'trt.plugins'."
    )
