"""Engine files for TensorRT, which measures on the GPU that it builds for: an engine is built on its own device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy_attn.engines.builder import (
    Builder,
    BuildJob,
    Built,
    Progress,
    Recipe,
    build_folder,
    refused,
    target_capability,
)
from deploy_attn.engines.engine_file import PLAN, EngineKey, is_ampere_or_newer, is_older, this_system
from deploy_attn.engines.target import Target
from deploy_attn.jetson import tensorrt_child
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.tensorrt_build import ENGINE as ENGINE_FILE
from deploy_attn.jetson.tensorrt_module import TENSORRT, how_to_install

ENGINE = "tensorrt"


class TensorRtBuilder(Builder):
    """TensorRT 8.0 to 11: weakly typed with the plan where the version has that, else from the typed graph."""

    def recipe(self, job: BuildJob) -> Recipe:
        _check_target(job.target)
        _check_hardware_compatible(job)
        probed = tensorrt_child.probe(ENGINE)
        device = _checked_device(job, probed)
        half, weak = job.precision == "fp16", bool(probed["weak_typing"])
        job.graph_file(job.precision)  # an artifact without FP16 has no plan either
        file = job.graph_file("fp32" if weak else job.precision)
        model = job.content(file)
        plan = job.plan() if half else {}
        files = job.artifact.manifest["files"]
        profile = job.profile(model)
        key = EngineKey(
            engine=ENGINE,
            runtime_version=str(probed["version"]),
            compute_capabilities=(str(device["compute_capability"]),),
            system=this_system(),
            precision=job.precision,
            graph_file=file,
            graph_sha256=files[file],
            plan_sha256=files[PLAN] if half and weak else None,
            options={
                "profile": {name: span.as_lists() for name, span in profile.items()},
                "typed": half and not weak,
                "workspace_bytes": job.target.workspace_bytes,
                "version_compatible": job.options.version_compatible,
                "hardware_compatible": job.options.hardware_compatible,
            },
        )
        return Recipe(job, key, model, profile, plan, device)

    def build(self, recipe: Recipe, on_progress: Progress | None) -> Built:
        with build_folder(recipe.model) as folder:
            outcome = tensorrt_child.build(str(folder), _request(recipe), on_progress)
            _raise_unless_right(recipe, outcome)
            content = (folder / ENGINE_FILE).read_bytes()
        layers = outcome.get("layers") or []
        facts = {"kernels": len(layers) or None, "layers": layers, "layers_from": outcome.get("layers_from")}
        return Built(content, facts, _warnings(outcome))


def _check_target(target: Target) -> None:
    if target.tensorrt is None:
        raise BadRequest(
            f"Target {target.name} runs {target.engine}, not TensorRT. "
            "Choose one with TensorRT from `deploy-attn list --targets`."
        )
    target_capability(target)


def _checked_device(job: BuildJob, probed: Mapping[str, Any]) -> Mapping[str, Any]:
    """The GPU that is here, if TensorRT and it are what the target asks for."""
    target, device = job.target, probed.get("device")
    capability, version = target_capability(target), str(probed["version"])
    if not device:
        raise BadRequest(
            f"TensorRT {version} is here and finds no GPU: {_reason(probed)}. It builds only on a GPU, and an engine "
            f"for {target.name} only on one of compute capability {capability}: copy the artifact there and build it "
            "there. For a desktop GPU, --engine tensorrt-rtx builds without one."
        )
    here = str(device["compute_capability"])
    if here != capability and not _serves(job, here, capability):
        raise BadRequest(
            f"Target {target.name} has compute capability {capability}; {device.get('name')} here has {here}. "
            "TensorRT builds an engine on the device that runs it: copy the artifact to "
            f"{target.name} and build it there, or choose a target of compute capability {here}."
        )
    wanted = target.tensorrt
    if wanted is not None and is_older(version, wanted):
        raise BadRequest(
            f"Target {target.name} has TensorRT {target.value('runtime.tensorrt')}; here is {version}, which is older "
            "and may misread what was checked for the newer one. Install that version, or choose a target of this one."
        )
    return dict(device)


def _serves(job: BuildJob, here: str, wanted: str) -> bool:
    """Whether an engine that is built on this GPU runs on the target's too, because it is asked to."""
    return job.options.hardware_compatible and is_ampere_or_newer(here) and is_ampere_or_newer(wanted)


def _check_hardware_compatible(job: BuildJob) -> None:
    """Raises BadRequest for targets that TensorRT's documentation excludes: JetPack, and what came before Ampere."""
    target, capability = job.target, target_capability(job.target)
    if not job.options.hardware_compatible:
        return
    if target.value("runtime.jetpack") is not None or not is_ampere_or_newer(capability):
        raise BadRequest(
            "--hardware-compatible is for desktop GPUs from compute capability 8.0 (Ampere) on, not for a Jetson; "
            f"target {target.name} has {capability}. Leave it out."
        )


def _reason(probed: Mapping[str, Any]) -> str:
    return str(probed.get("no_device") or "CUDA has no device").split(". ")[0].rstrip(".")


def _request(recipe: Recipe) -> dict[str, Any]:
    options, cache = recipe.key.options, recipe.job.options.timing_cache
    return {
        "module": ENGINE,
        "profile": options["profile"],
        "compute_capability": None,
        "precision": recipe.key.precision,
        "typed": options["typed"],
        "plan": dict(recipe.plan),
        "workspace_bytes": options["workspace_bytes"],
        "timing_cache": None if cache is None else str(Path(cache).absolute()),
        "version_compatible": options["version_compatible"],
        "hardware_compatible": options["hardware_compatible"],
    }


def _raise_unless_right(recipe: Recipe, outcome: Mapping[str, Any]) -> None:
    """Raises unless there is an engine, and it holds to the plan."""
    title = f"TensorRT {recipe.key.runtime_version}"
    if outcome.get("absent"):
        raise BadRequest(f"{title} cannot be imported any more ({outcome['absent']}). {how_to_install(TENSORRT)}")
    if outcome.get("refusals"):
        reasons = [
            f"node {one['node']!r} ({one['operator']}): {one['code']}: {one['reason']}" for one in outcome["refusals"]
        ]
        raise refused(f"The parser of {title} refuses this graph:", reasons)
    if not outcome.get("built"):
        errors = [text for severity, text in outcome.get("messages", ()) if severity.endswith("ERROR")]
        raise refused(f"The builder of {title} gave no engine:", errors or ["it does not say why"])
    if outcome.get("precision_problems"):
        heading = f"The engine that {title} built does not hold to {PLAN}; it was thrown away:"
        raise refused(heading, list(outcome["precision_problems"]))


def _warnings(outcome: Mapping[str, Any]) -> tuple[str, ...]:
    found = [text for severity, text in outcome.get("messages", ()) if severity == "WARNING"]
    return tuple(dict.fromkeys([*found, *outcome.get("precision_notes", ())]))
