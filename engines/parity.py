"""Parity: every graph of an artifact, in an engine, against its float64 reference."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy_attn.engines.base import Runner, runner_for
from deploy_attn.engines.rounding import rounded_from_typed
from deploy_attn.jetson.artifact import Artifact, Case, open_artifact
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.metrics import Comparison, as_dict, compare, within


@dataclass(frozen=True)
class Tolerance:
    """Bounds on a comparison: RMS relative, and any single element (see `compare`)."""

    rms_relative: float
    worst_relative: float
    reason: str


# The only place where tolerances are written. One wrong element may be 50 times
# the RMS bound: rounding errors are near normal, and no map here has enough
# elements for an honest one to stray further.
TOLERANCES: Mapping[str, Tolerance] = MappingProxyType(
    {
        "fp32": Tolerance(1e-5, 5e-4, "FP32 arithmetic in another order than the float64 reference"),
        "fp16": Tolerance(2e-3, 1e-1, "four roundings to FP16 (2^-11 each) of the whole signal"),
        "fp16-rounded": Tolerance(
            1e-2,
            5e-1,
            "pessimistic: a rounding at every FP16 node, which no engine does; it bounds, and finds overflow",
        ),
    }
)


# Where the module itself, in FP32, is further from float64 than a quarter of the
# bound, FP32 graphs may be four times as far as it is, but never beyond the ceiling.
_FP32_ALLOWANCE = 4.0
_FP32_CEILING = 1e-3


def fp32_tolerance(base: Tolerance, own_error: float) -> Tolerance:
    """The FP32 tolerance of a case on which the module itself has this error in FP32.

    Some modules amplify rounding on some inputs (a softmax over sums over H x W
    does); no FP32 graph of them can be nearer than they are themselves.
    """
    allowed = min(_FP32_ALLOWANCE * own_error, _FP32_CEILING)
    if not allowed > base.rms_relative:
        return base
    factor = allowed / base.rms_relative
    reason = f"the module itself, in PyTorch in FP32, is {own_error:.1e} off on this input; 4 times that is allowed"
    return Tolerance(allowed, base.worst_relative * factor, reason)


@dataclass(frozen=True)
class Check:
    """One graph, one way of running it, one case, one output."""

    graph: str
    precision: str
    bracket: str
    case: str
    output: str
    comparison: Comparison | None
    tolerance: Tolerance
    error: str | None = None

    @property
    def passed(self) -> bool:
        return self.comparison is not None and within(
            self.comparison, self.tolerance.rms_relative, self.tolerance.worst_relative
        )


@dataclass(frozen=True)
class Verdict:
    """What a verification found, and the conditions it was found under."""

    engine: str
    checks: tuple[Check, ...]
    conditions: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "passed": self.passed,
            "checks": [_check_as_dict(check) for check in self.checks],
            "conditions": dict(self.conditions),
        }


def verify(path: str | Path, engine: str = "onnxruntime") -> Verdict:
    """Re-checks an artifact from its own files, and records the verdict in it.

    Hashes come first; then each graph runs over each parity case. Typed FP16
    graphs are run twice: as the engine runs them (the optimistic bracket on a
    CPU) and rounded at every node (the pessimistic one).

    Raises:
        BadRequest: not an artifact, an unknown engine, or one not installed,
            or the folder cannot take the verdict.
        DamagedArtifact: a file differs from the manifest.
    """
    runner = runner_for(engine)
    artifact = open_artifact(str(path))
    verdict = _verdict(artifact, engine, runner)
    file = Path(artifact.file(f"verdict-{engine}.json"))
    try:
        file.write_text(json.dumps(verdict.as_dict(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        outcome = "passed" if verdict.passed else "failed"
        raise BadRequest(
            f"The checks {outcome}, but the verdict cannot be written to {file}: {error.strerror}. "
            "Verify a copy in a folder that can be written."
        ) from error
    return verdict


def _verdict(artifact: Artifact, engine: str, runner: type[Runner]) -> Verdict:
    cases = artifact.cases()
    checks: list[Check] = []
    conditions: dict[str, Any] = {}
    for graph in artifact.manifest["graphs"]:
        for bracket, precision, model in _ways_to_run(artifact, graph):
            run = runner(model)
            conditions = {**run.conditions(), **_machine()}
            blank = Check(graph["file"], graph["precision"], bracket, "", "", None, _tolerance(artifact, precision))
            checks.extend(_checks(run, cases, blank, artifact.manifest["fp32_errors"]))
    return Verdict(engine, tuple(checks), conditions)


def _ways_to_run(artifact: Artifact, graph: Mapping[str, str]) -> Iterator[tuple[str, str, bytes]]:
    """Yields (bracket, name of the tolerance, model) of one graph of the manifest."""
    import onnx

    model = onnx.load(artifact.file(graph["file"]), load_external_data=False)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise BadRequest(f"{graph['file']} keeps tensors in other files, which no manifest vouches for.")
    if graph["precision"] == "fp32":
        yield "exact", "fp32", model.SerializeToString()
        return
    yield "optimistic", "fp16", model.SerializeToString()
    yield "pessimistic", "fp16-rounded", rounded_from_typed(model).SerializeToString()


def _tolerance(artifact: Artifact, precision: str) -> Tolerance:
    return Tolerance(**artifact.manifest["tolerances"][precision])


def _checks(run: Runner, cases: list[Case], blank: Check, own_errors: Mapping[str, Mapping[str, float]]) -> list[Check]:
    checks = []
    try:
        with run:
            for case in cases:
                outputs = run.infer(case.inputs)
                for name in case.outputs:
                    own_error = own_errors.get(case.name, {}).get(name, 0.0)
                    checks.append(_compared(_fitted(blank, own_error), case, name, outputs))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return [replace(blank, case="all", output="all", error=f"the engine refused the graph: {reason}")]
    return checks


def _fitted(blank: Check, own_error: float) -> Check:
    if blank.precision != "fp32":
        return blank
    return replace(blank, tolerance=fp32_tolerance(blank.tolerance, own_error))


def _compared(blank: Check, case: Case, name: str, outputs: Mapping[str, Any]) -> Check:
    check = replace(blank, case=case.name, output=name)
    if name not in outputs:
        return replace(check, error="the graph has no such output")
    if outputs[name].shape != case.outputs[name].shape:
        return replace(check, error=f"shape {outputs[name].shape} instead of {case.outputs[name].shape}")
    return replace(check, comparison=compare(outputs[name], case.outputs[name]))


def _machine() -> dict[str, str]:
    return {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}


def _check_as_dict(check: Check) -> dict[str, Any]:
    return {
        "graph": check.graph,
        "precision": check.precision,
        "bracket": check.bracket,
        "case": check.case,
        "output": check.output,
        "passed": check.passed,
        "error": check.error,
        "measured": None if check.comparison is None else as_dict(check.comparison),
        "tolerance": {
            "rms_relative": check.tolerance.rms_relative,
            "worst_relative": check.tolerance.worst_relative,
            "reason": check.tolerance.reason,
        },
    }
