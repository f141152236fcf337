"""TensorRT-RTX as a second opinion on an ONNX file: its builder compiles ahead of time, without a GPU.

An engine can neither be loaded nor timed without a GPU. What it will do is read
from the builder's log, which lists every kernel of the finished engine: their
number and the bytes that they move are static figures, not times.

Each build runs in a process of its own. The builder is native code that can
crash (1.7.1 does on the operator Attention); there a crash is an error like any
other, nothing that it prints gets out, and builds may run side by side.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from deploy_attn.engines import rtx_log
from deploy_attn.engines.builder import Progress, build_folder, refused
from deploy_attn.engines.profile import Profile, check_profile, input_shapes
from deploy_attn.engines.rtx_log import Kernel, Message
from deploy_attn.engines.tensorrt import TensorRt
from deploy_attn.jetson import tensorrt_child
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.suggest import known_names
from deploy_attn.jetson.tensorrt_build import ENGINE
from deploy_attn.jetson.tensorrt_module import RTX, how_to_install

# Streams that wait for each other, sizes that the host computes, and their copy to the GPU.
_NO_KERNEL = ("signal", "wait", "shape_call", "ShapeHostToDevice")


class TensorRtRtx(TensorRt):
    """The engines that were built for TensorRT-RTX, on a GPU that it supports."""

    name: ClassVar[str] = "tensorrt-rtx"
    module: ClassVar[str] = RTX


class OtherGpu(BadRequest):
    """It does not build for the compute capability that was asked for.

    Attributes:
        known: those that it builds for, as `SM86`.
        version: of TensorRT-RTX.
    """

    def __init__(self, asked: str, known: Sequence[str], version: str) -> None:
        super().__init__(f"TensorRT-RTX {version} does not build for {asked!r}. {known_names(asked, known)}")
        self.known = tuple(known)
        self.version = version


@dataclass(frozen=True)
class RtxEngine:
    """A built engine, and what the builder said of it.

    Attributes:
        content: the engine as a file holds it.
        kernels: every listed layer in order, with those that only synchronise or handle sizes.
        scratch_bytes: memory for what lies between the kernels, at the profile's maximum.
        weights_bytes: memory for the weights.
        warnings: the builder's, and conditions on open sizes that it leaves to run time.
        version: of TensorRT-RTX.
    """

    content: bytes
    kernels: tuple[Kernel, ...]
    scratch_bytes: int
    weights_bytes: int
    warnings: tuple[str, ...]
    compute_capability: str
    version: str

    @property
    def kernel_count(self) -> int:
        """How many kernels the GPU runs."""
        return sum(kernel.layer_type not in _NO_KERNEL for kernel in self.kernels)

    @property
    def traffic_bytes(self) -> int | None:
        """What the kernels read and write together, without weights; None where a size is open."""
        moved = [size for kernel in self.kernels for size in (kernel.bytes_read, kernel.bytes_written)]
        known = [size for size in moved if size is not None]
        return sum(known) if len(known) == len(moved) else None


def engine_from_onnx(
    model: bytes,
    profile: Profile | None = None,
    compute_capability: str = "SM86",
    on_progress: Progress | None = None,
) -> RtxEngine:
    """Builds a strongly typed engine: every tensor keeps the type that the graph gives it.

    Args:
        model: an ONNX file with its weights inside.
        profile: by name, the range of each input that has open axes.
        compute_capability: which GPUs it is for, SM75 (Turing) to SM121.
        on_progress: called with what the builder reports while it builds.

    Raises:
        BadRequest: TensorRT-RTX is not there, the bytes are not an ONNX file,
            or the profile does not fit its inputs.
        OtherGpu: the compute capability is none that it builds for.
        DeployAttnError: the graph is refused, a size baked into it contradicts
            the profile, the builder crashed, or its log is not understood.
    """
    _check_installed()
    profile = profile or {}
    check_profile(profile, input_shapes(model))
    request = {
        "module": RTX,
        "profile": {name: span.as_lists() for name, span in profile.items()},
        "compute_capability": compute_capability,
        "typed": True,
    }
    with build_folder(model) as folder:
        outcome = tensorrt_child.build(str(folder), request, on_progress)
        messages = [Message(*pair) for pair in outcome["messages"]]
        _raise_unless_built(outcome, messages, compute_capability)
        content = (folder / ENGINE).read_bytes()
    return RtxEngine(
        content=content,
        kernels=rtx_log.kernels(messages),
        scratch_bytes=rtx_log.stated_bytes(messages, "Max Scratch Memory"),
        weights_bytes=rtx_log.stated_bytes(messages, "Total Weights Memory"),
        warnings=(*rtx_log.warnings(messages), *rtx_log.size_conditions(messages)),
        compute_capability=compute_capability,
        version=outcome["version"],
    )


def runtime() -> Mapping[str, Any]:
    """What is here: `version`, `device`, and `capabilities` that it builds for.

    Raises:
        BadRequest: TensorRT-RTX is not there.
    """
    _check_installed()
    return tensorrt_child.probe(RTX)


def _check_installed() -> None:
    if importlib.util.find_spec(RTX) is None:
        raise _absent("there is no module of that name")


def _raise_unless_built(outcome: Mapping[str, Any], messages: Sequence[Message], compute_capability: str) -> None:
    """Raises unless there is an engine and it takes every size of the profile."""
    version = outcome["version"]
    if outcome["absent"]:
        raise _absent(outcome["absent"])
    if compute_capability not in outcome["capabilities"]:
        raise OtherGpu(compute_capability, outcome["capabilities"], version)
    if outcome["refusals"]:
        reasons = [
            f"node {one['node']!r} ({one['operator']}): {one['code']}: {rtx_log.without_gpu_noise(one['reason'])}"
            for one in outcome["refusals"]
        ]
        raise refused(f"The parser of TensorRT-RTX {version} refuses this graph:", reasons)
    contradictions = rtx_log.contradictions(messages)
    if contradictions:
        raise DeployAttnError(
            f"The profile leaves a size open that is a number in the graph. {contradictions[0]}\n"
            "Fix that size in the profile, or export the graph so that the size is open."
        )
    if not outcome["built"]:
        reasons = rtx_log.errors(messages)
        raise refused(f"The builder of TensorRT-RTX {version} refuses this graph:", reasons, _remedy(reasons))


def _remedy(reasons: Sequence[str]) -> str:
    """What helps where the cause is known; else nothing."""
    if not any("for Turing" in reason for reason in reasons):
        return ""
    return (
        "It has no FP32 matrix products for compute capability 7.5, and precision plans keep some in FP32. Build for a "
        "newer GPU, or with --engine tensorrt on the GPU itself."
    )


def _absent(reason: str) -> BadRequest:
    return BadRequest(f"TensorRT-RTX was asked for and cannot be imported ({reason}). {how_to_install(RTX)}")
