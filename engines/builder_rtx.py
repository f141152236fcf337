"""Engine files for TensorRT-RTX: built anywhere, for the compute capability of the target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from deploy_attn.engines.builder import Builder, BuildJob, Built, Progress, Recipe, target_capability
from deploy_attn.engines.engine_file import EngineKey
from deploy_attn.engines.rtx_precision import silently_fp32
from deploy_attn.engines.tensorrt_rtx import OtherGpu, RtxEngine, engine_from_onnx, runtime
from deploy_attn.jetson.errors import BadRequest, DeployAttnError

ENGINE = "tensorrt-rtx"
_FP32_BYTES = 4


class RtxBuilder(Builder):
    """TensorRT-RTX: strongly typed, so an FP16 engine comes from the typed graph."""

    def recipe(self, job: BuildJob) -> Recipe:
        _check_options(job)
        capability, here = target_capability(job.target), runtime()
        known, version = here.get("capabilities"), str(here["version"])
        if known and _enumerated(capability) not in known:
            raise _other_gpu(job, capability, OtherGpu(_enumerated(capability), known, version))
        file = job.graph_file(job.precision)
        model = job.content(file)
        profile = job.profile(model)
        options = {"profile": {name: span.as_lists() for name, span in profile.items()}}
        key = EngineKey(
            engine=ENGINE,
            runtime_version=version,
            compute_capabilities=(capability,),
            system="",
            precision=job.precision,
            graph_file=file,
            graph_sha256=job.artifact.manifest["files"][file],
            plan_sha256=None,
            options=options,
        )
        return Recipe(job, key, model, profile, {}, None)

    def build(self, recipe: Recipe, on_progress: Progress | None) -> Built:
        job, capability = recipe.job, recipe.key.compute_capabilities[0]
        try:
            engine = engine_from_onnx(recipe.model, recipe.profile, _enumerated(capability), on_progress)
        except OtherGpu as error:
            raise _other_gpu(job, capability, error) from error
        if recipe.key.precision == "fp16":
            _check_half(recipe, engine)
        return Built(engine.content, _facts(recipe, engine), engine.warnings)


def _check_options(job: BuildJob) -> None:
    """Raises BadRequest for what TensorRT-RTX has not; its own documentation says so of each."""
    options = job.options
    reasons = {
        "--timing-cache": (options.timing_cache, "nothing is timed when it builds, and a cache makes it ask for a GPU"),
        "--version-compatible": (options.version_compatible, "its engines are for the very version that built them"),
        "--hardware-compatible": (options.hardware_compatible, "its engines are for the compute capability they name"),
    }
    for flag, (given, reason) in reasons.items():
        if given:
            raise BadRequest(f"{flag} is not for tensorrt-rtx: {reason}. Leave it out.")


def _enumerated(capability: str) -> str:
    """`8.9` as TensorRT-RTX names it: SM89."""
    return f"SM{capability.replace('.', '')}"


def _other_gpu(job: BuildJob, capability: str, error: OtherGpu) -> BadRequest:
    known = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in error.known)
    there = " For this target use --engine tensorrt on the device itself." if job.target.engine == "tensorrt" else ""
    return BadRequest(
        f"Target {job.target.name} has compute capability {capability}; "
        f"TensorRT-RTX {error.version} builds for {known}.{there}"
    )


def _check_half(recipe: Recipe, engine: RtxEngine) -> None:
    tensor = silently_fp32(recipe.model, engine.kernels)
    if tensor is not None:
        raise DeployAttnError(
            f"TensorRT-RTX {engine.version} built an engine in FP32 from {recipe.key.graph_file}: no kernel reads or "
            f"writes FP16, though tensor {tensor!r} is FP16 in the graph and goes from one kernel to another. "
            "Nothing was written. Build with --precision fp32 to have that, or report the graph."
        )


def _facts(recipe: Recipe, engine: RtxEngine) -> dict[str, Any]:
    return {
        "kernels": engine.kernel_count,
        "traffic_bytes": engine.traffic_bytes,
        "traffic_passes": _passes(recipe, engine),
        "scratch_bytes": engine.scratch_bytes,
        "weights_bytes": engine.weights_bytes,
        "layers": [_layer(asdict(kernel)) for kernel in engine.kernels],
    }


def _layer(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _passes(recipe: Recipe, engine: RtxEngine) -> float | None:
    """The traffic in reads and writes of the input map in FP32; None where a size is open."""
    maps = [case.inputs for case in recipe.job.artifact.cases()][:1]
    values = sum(math.prod(array.shape) for inputs in maps for array in inputs.values())
    if engine.traffic_bytes is None or not values:
        return None
    return round(engine.traffic_bytes / (2 * _FP32_BYTES * values), 2)
