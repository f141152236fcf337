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
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from deploy_attn.engines import rtx_log, rtx_process
from deploy_attn.engines.rtx_log import Kernel, Message
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.suggest import known_names

_Shape = tuple[int | None, ...]

# Streams that wait for each other, sizes that the host computes, and their copy to the GPU.
_NO_KERNEL = ("signal", "wait", "shape_call", "ShapeHostToDevice")
_MOST_REASONS = 5
# The path of imports is set once Python is up: in PYTHONPATH a `types.py` of the user would keep it from starting.
_CHILD = "import runpy, sys; sys.path[:] = sys.argv[3:]; runpy.run_path(sys.argv[1], run_name='__main__')"


@dataclass(frozen=True)
class ShapeRange:
    """The shapes that an input may take, and the one that the engine is tuned for."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    def __post_init__(self) -> None:
        shapes = (self.minimum, self.optimum, self.maximum)
        in_order = all(1 <= low <= usual <= high for low, usual, high in zip(*shapes))
        if len({len(shape) for shape in shapes}) > 1 or not in_order:
            raise BadRequest(
                f"A profile got {', '.join(map(_text, shapes))} as minimum, optimum and maximum. "
                "They must be of one rank, with 1 <= minimum <= optimum <= maximum on every axis."
            )


Profile = Mapping[str, ShapeRange]


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


def engine_from_onnx(model: bytes, profile: Profile | None = None, compute_capability: str = "SM86") -> RtxEngine:
    """Builds a strongly typed engine: every tensor keeps the type that the graph gives it.

    Args:
        model: an ONNX file with its weights inside.
        profile: by name, the range of each input that has open axes.
        compute_capability: which GPUs it is for, SM75 (Turing) to SM121.

    Raises:
        BadRequest: TensorRT-RTX is not there, the bytes are not an ONNX file,
            the profile does not fit its inputs, or the compute capability is
            unknown.
        DeployAttnError: the graph is refused, a size baked into it contradicts
            the profile, the builder crashed, or its log is not understood.
    """
    if importlib.util.find_spec("tensorrt_rtx") is None:
        raise _absent("there is no module of that name")
    profile = profile or {}
    _check_profile(profile, _input_shapes(model))
    with tempfile.TemporaryDirectory(prefix="deploy-attn-rtx-") as name:
        folder = Path(name)
        outcome = _outcome(folder, model, profile, compute_capability)
        _raise_unless_built(outcome, compute_capability)
        content = (folder / rtx_process.ENGINE).read_bytes()
    messages = outcome.messages
    return RtxEngine(
        content=content,
        kernels=rtx_log.kernels(messages),
        scratch_bytes=rtx_log.stated_bytes(messages, "Max Scratch Memory"),
        weights_bytes=rtx_log.stated_bytes(messages, "Total Weights Memory"),
        warnings=(*rtx_log.warnings(messages), *rtx_log.size_conditions(messages)),
        compute_capability=compute_capability,
        version=outcome.version,
    )


def _input_shapes(model: bytes) -> dict[str, _Shape]:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load_from_string(model).graph
    except DecodeError as error:
        raise BadRequest(f"TensorRT-RTX was given {len(model)} bytes that are not an ONNX file: {error}.") from error
    if not graph.output:  # the parser takes such a file, even an empty one
        raise BadRequest(f"TensorRT-RTX was given {len(model)} bytes that hold no graph with an output.")
    weights = {initializer.name for initializer in graph.initializer}
    return {
        value.name: tuple(
            axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim
        )
        for value in graph.input
        if value.name not in weights
    }


def _check_profile(profile: Profile, inputs: Mapping[str, _Shape]) -> None:
    """Raises BadRequest unless it covers every open input and fits each that it names."""
    for name in profile:
        if name not in inputs:
            raise BadRequest(f"The profile names input {name!r}, which the graph lacks. {known_names(name, inputs)}")
    for name, shape in inputs.items():
        if name not in profile and None in shape:
            raise BadRequest(
                f"Input {name!r} is {_text(shape)}: give a profile of the shapes that it may take, "
                "or export the graph with fixed shapes."
            )
        for asked in (profile[name].minimum, profile[name].maximum) if name in profile else ():
            if len(asked) != len(shape) or any(extent not in (None, want) for extent, want in zip(shape, asked)):
                raise BadRequest(f"The profile gives input {name!r} {_text(asked)}; the graph takes {_text(shape)}.")


class _Outcome(NamedTuple):
    """What the process that builds leaves beside the engine."""

    absent: str = ""
    version: str = ""
    capabilities: Sequence[str] = ()
    refusals: Sequence[Mapping[str, str]] = ()
    built: bool = False
    messages: Sequence[Message] = ()


def _outcome(folder: Path, model: bytes, profile: Profile, compute_capability: str) -> _Outcome:
    """Has a process of its own build in the folder.

    Raises:
        DeployAttnError: it ended without an answer.
    """
    shapes = {name: (span.minimum, span.optimum, span.maximum) for name, span in profile.items()}
    request = json.dumps({"profile": shapes, "compute_capability": compute_capability})
    (folder / rtx_process.MODEL).write_bytes(model)
    (folder / rtx_process.REQUEST).write_text(request, encoding="utf-8")
    command = [sys.executable, "-c", _CHILD, rtx_process.__file__, str(folder), *sys.path]
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        last_words = "".join(f": {line}" for line in done.stderr.strip().splitlines()[-1:])
        raise DeployAttnError(
            f"TensorRT-RTX's builder crashed on this graph ({how}{last_words}). "
            "If the graph has the operator Attention, export it as plain operations."
        )
    fields = json.loads((folder / rtx_process.OUTCOME).read_text(encoding="utf-8"))
    return _Outcome(**{**fields, "messages": [Message(*pair) for pair in fields.get("messages", ())]})


def _raise_unless_built(outcome: _Outcome, compute_capability: str) -> None:
    """Raises unless there is an engine and it takes every size of the profile."""
    if outcome.absent:
        raise _absent(outcome.absent)
    if compute_capability not in outcome.capabilities:
        raise BadRequest(
            f"TensorRT-RTX {outcome.version} does not build for {compute_capability!r}. "
            f"{known_names(compute_capability, outcome.capabilities)}"
        )
    if outcome.refusals:
        reasons = [
            f"node {one['node']!r} ({one['operator']}): {one['code']}: {rtx_log.without_gpu_noise(one['reason'])}"
            for one in outcome.refusals
        ]
        raise _refused(outcome.version, "parser", reasons)
    contradictions = rtx_log.contradictions(outcome.messages)
    if contradictions:
        raise DeployAttnError(
            f"The profile leaves a size open that is a number in the graph. {contradictions[0]}\n"
            "Fix that size in the profile, or export the graph so that the size is open."
        )
    if not outcome.built:
        raise _refused(outcome.version, "builder", rtx_log.errors(outcome.messages))


def _refused(version: str, step: str, reasons: Sequence[str]) -> DeployAttnError:
    more = len(reasons) - _MOST_REASONS
    lines = [f"The {step} of TensorRT-RTX {version} refuses this graph:", *reasons[:_MOST_REASONS]]
    return DeployAttnError("\n  ".join([*lines, f"and {more} more"] if more > 0 else lines))


def _absent(reason: str) -> BadRequest:
    return BadRequest(
        f"TensorRT-RTX was asked for and cannot be imported ({reason}). Install it with "
        "`pip install 'deploy-attn[rtx]'` on x86-64 Linux or Windows; it builds without a GPU."
    )


def _text(shape: Sequence[int | None]) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in shape)
