"""The builder's settings from a request: memory, precision flags, profile, timing cache, compatibility, progress."""

import io
import json
import os
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .errors import BadRequest, first_line
from .tensorrt_module import has_strong_typing, has_weak_typing, version

Messages = List[Tuple[str, str]]
Request = Mapping[str, Any]

_STDOUT = 1


def is_weak(trt: Any, request: Request) -> bool:
    """Whether precision is set by flags and layers, not by the graph's own types."""
    return has_weak_typing(trt) and not request["typed"]


def check_request(trt: Any, request: Request) -> None:
    """Raises BadRequest for what this version cannot do; nothing is left out in silence."""
    half = request["precision"] == "fp16"
    if half and not request["typed"] and not has_weak_typing(trt):
        raise BadRequest(
            "FP16 was asked for with the FP32 graph and a plan; TensorRT {} only takes precision from the graph's own "
            "types. Build it from model.fp16.onnx.".format(version(trt))
        )
    if half and request["typed"] and not has_strong_typing(trt):
        raise BadRequest(
            "FP16 was asked for with the typed graph; TensorRT {} has no strongly typed networks, which come with "
            "10.0. Build it from model.onnx and precision_plan.json.".format(version(trt))
        )
    if request.get("compute_capability") and not hasattr(trt, "ComputeCapability"):
        raise BadRequest(
            "An engine for {} was asked for; TensorRT {} builds for the GPU that it runs on. Build it there, without "
            "a compute capability.".format(request["compute_capability"], version(trt))
        )
    if request.get("version_compatible") and not hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"):
        raise _too_old(trt, "A version-compatible engine")
    if request.get("hardware_compatible") and not _has_hardware_levels(trt):
        raise _too_old(trt, "A hardware-compatible engine")


def make_config(trt: Any, builder: Any, request: Request) -> Any:
    """The builder's settings, all but the timing cache and the progress."""
    config = builder.create_builder_config()
    _set_verbosity(trt, config)
    if request.get("compute_capability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, request["compute_capability"]), 0)
    if request.get("workspace_bytes"):
        if hasattr(config, "set_memory_pool_limit"):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(request["workspace_bytes"]))
        else:
            config.max_workspace_size = int(request["workspace_bytes"])
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # it has FP16's mantissa: FP32 would not be FP32
    if request["precision"] == "fp16" and is_weak(trt, request):
        config.set_flag(trt.BuilderFlag.FP16)
        obey = "OBEY_PRECISION_CONSTRAINTS"
        config.set_flag(getattr(trt.BuilderFlag, obey if hasattr(trt.BuilderFlag, obey) else "STRICT_TYPES"))
    if request.get("version_compatible"):
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if request.get("hardware_compatible"):
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if request.get("profile"):
        _add_profile(trt, builder, config, request["profile"])
    return config


def load_timing_cache(config: Any, path: str, messages: Messages) -> None:
    """Gives the builder the cache of an earlier build; one that cannot be used is replaced, and a warning says so."""
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise BadRequest(
            "The timing cache {} cannot be written: its folder does not exist. Make it first.".format(path)
        )
    content, problem = b"", ""
    try:
        with io.open(path, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BadRequest("The timing cache {} cannot be read: {}.".format(path, error.strerror or error)) from error
    if content:
        problem = _offered(config, content)
    if not content or problem:
        _offered(config, b"")
    if problem:
        messages.append(
            ("WARNING", "The timing cache {} is not used and is written anew: {}.".format(path, problem.rstrip(".")))
        )


def save_timing_cache(config: Any, path: str, messages: Messages) -> None:
    """Writes the cache for the next build, whole or not at all; the engine is there whether or not it can be."""
    try:
        cache = config.get_timing_cache()
        content = bytes(cache.serialize()) if cache is not None else b""
        draft = "{}.{}".format(path, os.getpid())
        try:
            with io.open(draft, "wb") as stream:
                stream.write(content)
            os.replace(draft, path)
        finally:
            if os.path.exists(draft):
                os.unlink(draft)
    except OSError as error:
        messages.append(
            ("WARNING", "The timing cache {} could not be written: {}.".format(path, error.strerror or error))
        )


def report_progress(trt: Any, config: Any) -> Optional[Any]:
    """Has the builder print its progress, where it can; what is returned must live as long as the build.

    A line of JSON on stdout for each step: {"phase": ..., "step": ..., "steps": ...}.
    """
    if not hasattr(trt, "IProgressMonitor") or not hasattr(config, "progress_monitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: Dict[str, int] = {}

        def phase_start(self, phase: str, parent: Optional[str], steps: int) -> None:
            self.steps[phase] = steps
            _tell(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            # False ends the build, as it should when nobody listens any more.
            return _tell(phase, min(step + 1, self.steps.get(phase, step + 1)), self.steps.get(phase, step + 1))

        def phase_finish(self, phase: str) -> None:
            steps = self.steps.pop(phase, 1)
            _tell(phase, steps, steps)

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor


def _tell(phase: str, step: int, steps: int) -> bool:
    line = json.dumps({"phase": phase, "step": step, "steps": steps})
    try:
        os.write(_STDOUT, (line + "\n").encode("ascii"))
    except OSError:
        return False
    return True


def _set_verbosity(trt: Any, config: Any) -> None:
    """So that the engine, or the log, holds the type of every tensor."""
    for level in ("DETAILED", "VERBOSE"):  # 8.0 calls it VERBOSE
        if hasattr(trt.ProfilingVerbosity, level):
            config.profiling_verbosity = getattr(trt.ProfilingVerbosity, level)
            return


def _add_profile(trt: Any, builder: Any, config: Any, shapes: Mapping[str, Any]) -> None:
    profile = builder.create_optimization_profile()
    for name, (minimum, optimum, maximum) in shapes.items():
        profile.set_shape(name, tuple(minimum), tuple(optimum), tuple(maximum))
    if config.add_optimization_profile(profile) < 0:
        raise BadRequest(
            "TensorRT {} refuses the profile of {}: it wants minimum <= optimum <= maximum on every axis of every "
            "input with open axes.".format(version(trt), ", ".join(sorted(shapes)))
        )


def _offered(config: Any, content: bytes) -> str:
    """Why the builder does not take this cache; empty where it does."""
    try:
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return ""
    except (RuntimeError, TypeError, ValueError) as error:
        return "TensorRT cannot read it ({})".format(first_line(error))
    return "it is damaged, or of another TensorRT or GPU"


def _has_hardware_levels(trt: Any) -> bool:
    return hasattr(trt, "HardwareCompatibilityLevel") and hasattr(trt.IBuilderConfig, "hardware_compatibility_level")


def _too_old(trt: Any, what: str) -> BadRequest:
    return BadRequest(
        "{} was asked for, which exists from TensorRT 8.6 on; this is {}. Build without it, on each machine its own "
        "engine.".format(what, version(trt))
    )
