"""The graph of one fused operator in an artifact's folder: which export it is of, and read without trusting it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_attn.engines.fused.library import DOMAIN, SYSTEMS
from deploy_attn.jetson.artifact import SELF_HASH, Artifact
from deploy_attn.jetson.errors import BadRequest, first_line

if TYPE_CHECKING:
    import onnx

ENGINE = "onnxruntime-fused"
FUSED_GRAPH = "fused-onnxruntime.onnx"
_ARTIFACT, _GRAPH = "deploy_attn.artifact_sha256", "deploy_attn.graph_sha256"
_MOST_BYTES = 1 << 28
_SHOWN = 12  # digits of a hash


def fused_file(folder: str | Path) -> Path:
    """Where the graph lies in an artifact's folder; no manifest vouches for it."""
    return Path(folder) / FUSED_GRAPH


def content_of(model: onnx.ModelProto, artifact: Artifact) -> bytes:
    """The model as a file, with the manifest's own hash and one of the graph in its properties."""
    import onnx

    onnx.helper.set_model_props(model, {_ARTIFACT: str(artifact.manifest[SELF_HASH]), _GRAPH: _sha256(model)})
    content: bytes = model.SerializeToString()
    return content


def stored_graph(artifact: Artifact) -> bytes:
    """The graph that `deploy-attn fuse` left in the artifact's folder.

    Raises:
        BadRequest: there is none, it is not what was written there, or it is of another export.
    """
    file = fused_file(artifact.path)
    again = f"Write it again with `deploy-attn fuse {artifact.path}`."
    content = _read(file, artifact, again)
    model = _parsed(file, content, again)
    noted = {one.key: one.value for one in model.metadata_props}
    made_of, here = noted.get(_ARTIFACT, ""), str(artifact.manifest[SELF_HASH])
    if made_of != here:
        raise BadRequest(
            f"{file} is of another export than the one in its folder (manifest {made_of[:_SHOWN] or 'unknown'}, there "
            f"{here[:_SHOWN]}). {again}"
        )
    if noted.get(_GRAPH) != _sha256(model) or not _is_one_operator(model):
        raise BadRequest(f"{file} changed since it was written (its own hash does not match). {again}")
    return content


def _read(file: Path, artifact: Artifact, again: str) -> bytes:
    try:
        if not file.exists():
            raise BadRequest(
                f"{artifact.path} has no fused graph ({file.name}). `deploy-attn fuse {artifact.path}` writes it for a "
                f"module of the catalogue that has a fused operator: {', '.join(SYSTEMS)}."
            )
        if not file.is_file() or file.stat().st_size > _MOST_BYTES:
            raise BadRequest(f"{file} is not read: it is not a plain file of up to {_MOST_BYTES >> 20} MiB. {again}")
        return file.read_bytes()
    except OSError as error:
        raise BadRequest(f"{file} is not read: {error.strerror or error}. {again}") from error


def _parsed(file: Path, content: bytes, again: str) -> onnx.ModelProto:
    import onnx

    try:
        return onnx.load_from_string(content)
    except Exception as error:  # protobuf raises types of its own, by its version
        raise BadRequest(f"{file} is not read as a graph: {first_line(error)}. {again}") from error


def _is_one_operator(model: onnx.ModelProto) -> bool:
    """Whether there is nothing but an operator of ours, and no tensor in another file."""
    parameters = model.graph.initializer
    own = [node.domain == DOMAIN and not node.attribute for node in model.graph.node]
    return own == [True] and not model.functions and not any(len(tensor.external_data) for tensor in parameters)


def _sha256(model: onnx.ModelProto) -> str:
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()
