"""Parity: every graph of an artifact, in an engine, against its float64 reference."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import fields as fields_of
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy_attn.engines.base import Engine, Graph, Runner, engine_class
from deploy_attn.engines.tolerance import TOLERANCES, Tolerance, fp32_tolerance
from deploy_attn.engines.verdict import Check, Verdict
from deploy_attn.jetson.artifact import Artifact, Case, open_artifact
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact, DeployAttnError, first_line
from deploy_attn.jetson.metrics import compare

_OwnErrors = Mapping[str, Mapping[str, Mapping[str, float]]]  # of the module in FP32, by case and output


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
    _check_manifest(artifact)
    verdict = _verdict(artifact, engine, chosen(artifact))
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


def _check_manifest(artifact: Artifact) -> None:
    """Raises DamagedArtifact for what no export would have written, however well the hashes match."""
    manifest = artifact.manifest
    graphs, tolerances = manifest.get("graphs"), manifest.get("tolerances")
    problem = None
    if not isinstance(graphs, list) or not all(isinstance(graph, dict) and "file" in graph for graph in graphs):
        problem = "'graphs' is not a list of graphs with a file each"
    elif any(graph.get("precision") not in ("fp32", "fp16") for graph in graphs):
        problem = "a graph has a precision other than fp32 and fp16"
    elif not isinstance(manifest.get("cases"), list):
        problem = "'cases' is not a list"
    elif not isinstance(tolerances, dict) or not all(_is_tolerance(tolerances.get(name)) for name in TOLERANCES):
        problem = f"'tolerances' lacks one of {', '.join(TOLERANCES)}"
    if problem:
        raise DamagedArtifact(f"The manifest of {artifact.path} is malformed: {problem}. Export the artifact again.")


def _is_tolerance(fields: object) -> bool:
    names = {field.name for field in fields_of(Tolerance)}
    return isinstance(fields, dict) and set(fields) == names


def _verdict(artifact: Artifact, name: str, engine: Engine) -> Verdict:
    cases = artifact.cases()
    checks: list[Check] = []
    conditions: dict[str, Any] = {}
    for listed in artifact.manifest["graphs"]:
        try:
            runs = list(engine.runs(_graph(artifact, listed)))
        except DeployAttnError:
            raise
        except Exception as error:  # protobuf and shape inference raise many types; each is a finding
            checks.append(_unreadable(listed, _tolerance(artifact, listed["precision"]), error))
            continue
        for run in runs:
            tolerance = _tolerance(artifact, run.tolerance)
            blank = Check(listed["file"], listed["precision"], run.bracket, "", "", None, tolerance)
            checks.extend(_checks(run.runner, cases, blank, artifact.manifest.get("fp32_errors", {})))
            conditions = {**run.runner.conditions(), **_machine()}
    return Verdict(name, tuple(checks), conditions)


def _unreadable(graph: Mapping[str, str], tolerance: Tolerance, error: Exception) -> Check:
    reason = f"cannot be read as a graph: {first_line(error)}"
    return Check(graph["file"], graph["precision"], "none", "all", "all", None, tolerance, reason)


def _graph(artifact: Artifact, listed: Mapping[str, str]) -> Graph:
    """A graph of the manifest, with its weights inside."""
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


def _tolerance(artifact: Artifact, precision: str) -> Tolerance:
    return Tolerance(**artifact.manifest["tolerances"][precision])


def _checks(run: Runner, cases: list[Case], blank: Check, own_errors: _OwnErrors) -> list[Check]:
    checks: list[Check] = []
    started = False
    try:
        with run:
            started = True
            for case in cases:
                outputs = run.infer(case.inputs)
                for name in case.outputs:
                    own_error = own_errors.get(case.name, {}).get(name, {})
                    checks.append(_compared(_fitted(blank, own_error), case, name, outputs))
    except Exception as error:  # whatever the engine throws is the finding
        if isinstance(error, DeployAttnError) and not started:
            raise  # the engine is not here or did not start, which says nothing about the graph
        refused = f"the engine refused the graph: {first_line(error)}"
        return [replace(blank, case="all", output="all", error=refused)]
    return checks


def _fitted(blank: Check, own_error: Mapping[str, float]) -> Check:
    if blank.precision != "fp32":
        return blank
    rms, worst = own_error.get("rms_relative", 0.0), own_error.get("worst_relative", 0.0)
    return replace(blank, tolerance=fp32_tolerance(blank.tolerance, rms, worst))


def _compared(blank: Check, case: Case, name: str, outputs: Mapping[str, Any]) -> Check:
    check = replace(blank, case=case.name, output=name)
    if name not in outputs:
        return replace(check, error="the graph has no such output")
    if outputs[name].shape != case.outputs[name].shape:
        return replace(check, error=f"shape {outputs[name].shape} instead of {case.outputs[name].shape}")
    return replace(check, comparison=compare(outputs[name], case.outputs[name]))


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
    }
