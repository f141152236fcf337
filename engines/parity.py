"""Parity: every graph of an artifact, in an engine, against its float64 reference."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy_attn.engines.base import Engine, Graph, Runner, engine_class
from deploy_attn.engines.verdict import Verdict
from deploy_attn.jetson.artifact import SELF_HASH, Artifact, Case, open_artifact
from deploy_attn.jetson.errors import BadRequest, DeployAttnError, first_line
from deploy_attn.jetson.parity import Check, OwnErrors, Tolerance, check_manifest, checks_of, refused, tolerance_of


def verify(path: str | Path, engine: str = "onnxruntime") -> Verdict:
    """Re-checks an artifact from its own files, and records the verdict in it.

    Hashes come first; then each graph runs over each parity case, in every way
    that the engine has for it. A CPU runs typed FP16 graphs twice: as they are
    (the optimistic bracket) and rounded at every node (the pessimistic one).

    Raises:
        BadRequest: not an artifact, an unknown engine, one that is not
            installed, does not start here or has nothing built for it, or the
            folder cannot take the verdict.
        DamagedArtifact: a file differs from the manifest.
    """
    chosen = engine_class(engine)
    artifact = open_artifact(str(path))
    check_manifest(artifact)
    verdict = verdict_of(artifact, engine, chosen(artifact))
    file = Path(path) / f"verdict-{engine}.json"
    try:
        if file.is_symlink():
            file.unlink()  # never write through a link to where it points
        file.write_text(json.dumps(verdict.as_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        outcome = "passed" if verdict.passed else "failed"
        raise BadRequest(
            f"The checks {outcome}, but the verdict cannot be written to {file}: {error.strerror or error}. "
            "Verify a copy in a folder that can be written."
        ) from error
    return verdict


def verdict_of(artifact: Artifact, name: str, engine: Engine, precision: str | None = None) -> Verdict:
    """What an engine makes of an artifact, or of its graphs of one precision; nothing is written.

    Raises:
        BadRequest, DamagedArtifact: as `verify`.
    """
    cases = artifact.cases()
    checks: list[Check] = []
    here = {"artifact_sha256": artifact.manifest[SELF_HASH], **_machine()}
    conditions: dict[str, Any] = here
    for listed in artifact.manifest["graphs"]:
        if precision not in (None, listed["precision"]):
            continue
        try:
            runs = list(engine.runs(graph_of(artifact, listed)))
        except DeployAttnError:
            raise
        except Exception as error:  # protobuf and shape inference raise many types; each is a finding
            checks.append(_unreadable(listed, tolerance_of(artifact.manifest, listed["precision"]), error))
            continue
        for run in runs:
            tolerance = tolerance_of(artifact.manifest, run.tolerance)
            blank = Check(listed["file"], listed["precision"], run.bracket, "", "", None, tolerance)
            checks.extend(_checks(run.runner, cases, blank, artifact.manifest.get("fp32_errors", {})))
            conditions = {**run.runner.conditions(), **engine.conditions(), **here}
    return Verdict(name, tuple(checks), conditions)


def _unreadable(graph: Mapping[str, str], tolerance: Tolerance, error: Exception) -> Check:
    reason = f"cannot be read as a graph: {first_line(error)}"
    return Check(graph["file"], graph["precision"], "none", "all", "all", None, tolerance, reason)


def graph_of(artifact: Artifact, listed: Mapping[str, str]) -> Graph:
    """A graph that the manifest lists, with its weights inside.

    Raises:
        BadRequest: it keeps some of them elsewhere.
    """
    import onnx

    content = Path(artifact.file(listed["file"])).read_bytes()
    model = onnx.load_from_string(content)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise BadRequest(f"{listed['file']} keeps tensors in other files, which no manifest vouches for.")
    return Graph(listed["file"], listed["precision"], content)


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of a model: in initializers, attributes, subgraphs, functions, sparse or not."""
    import onnx

    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


def _checks(run: Runner, cases: list[Case], blank: Check, own_errors: OwnErrors) -> list[Check]:
    started = False
    try:
        with run:
            started = True
            return checks_of(run.infer, cases, blank, own_errors)
    except Exception as error:  # whatever the engine throws is the finding
        if isinstance(error, DeployAttnError) and not started:
            raise  # the engine is not here or did not start, which says nothing about the graph
        return [refused(blank, error)]


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
    }
