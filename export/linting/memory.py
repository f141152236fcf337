"""How much memory a model needs on a target, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.target import Target
from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph

if TYPE_CHECKING:
    import onnx

# Compute capability -> what is in use before the first layer is built. 5.3 is the Jetson Nano: the system,
# a CUDA context, cuBLAS and cuDNN, by one log of a build that was killed (third party, tensorrtx#1145).
_START_UP_BYTES = MappingProxyType({"5.3": 3_100_000_000})
_CLOSE = 0.9  # of the memory; beyond it, what else runs there decides
_ALIASES = frozenset(("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))
_NO_TENSOR = frozenset(("Constant",))
_HALF_BYTES = 2


@dataclass(frozen=True)
class Memory:
    """Bytes, for one run of the whole graph.

    Attributes:
        weights_bytes: initializers and constants, as the file has them.
        activations_bytes: the most that is live at once, tensors in FP32 as the file has them.
        half_activations_bytes: the same with a plan's FP16 tensors; None without a plan.
        largest_tensor: the name of the largest tensor that a node makes or the network takes; empty for none.
        largest_tensor_bytes: its size.
        start_up_bytes: in use before the engine is built; None where no figure is known.
        needed_bytes: weights, activations, start-up and the target's workspace.
        available_bytes: the board's whole memory.
        note: which shapes were assumed, and what was left out.
    """

    weights_bytes: int
    activations_bytes: int
    half_activations_bytes: int | None
    largest_tensor: str
    largest_tensor_bytes: int
    start_up_bytes: int | None
    needed_bytes: int
    available_bytes: int
    note: str

    @property
    def own_bytes(self) -> int:
        """Weights and activations, the latter as they run."""
        activations = self.activations_bytes if self.half_activations_bytes is None else self.half_activations_bytes
        return self.weights_bytes + activations

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(graph: LintGraph, target: Target) -> Memory | None:
    """What the graph needs there; None for a target whose memory is not known.

    Open extents count as 1. Each tensor lives from the node that makes it to the
    last that reads it, inputs and outputs all the time, as an engine binds them;
    reshapes take none. What an engine saves by fusing is not known here, nor what
    a subgraph of Loop or If needs.
    """
    if target.memory_bytes is None:
        return None
    sizes = _Sizes(graph)
    weights = sum(_bytes_of(item.data_type, item.dims) for item in _constants(graph.model.graph))
    activations = _peak(graph, sizes.full)
    half = None if graph.half_planned is None else _peak(graph, sizes.half)
    start_up = _START_UP_BYTES.get(str(target.value("device.compute_capability")))
    largest = max(sizes.full, key=lambda name: sizes.full[name], default="")
    return Memory(
        weights_bytes=weights,
        activations_bytes=activations,
        half_activations_bytes=half,
        largest_tensor=largest,
        largest_tensor_bytes=sizes.full.get(largest, 0),
        start_up_bytes=start_up,
        needed_bytes=weights
        + (activations if half is None else half)
        + (start_up or 0)
        + (target.workspace_bytes or 0),
        available_bytes=target.memory_bytes,
        note=sizes.note,
    )


def memory_rule(graph: LintGraph, target: Target, memory: Memory | None = None) -> Iterator[Finding]:
    """Refused where weights and activations alone exceed the board, risky where start-up and workspace bring it near.

    `memory` is the estimate, where the caller has it.
    """
    memory = memory or estimate(graph, target)
    if memory is None:
        return
    alone = memory.own_bytes > memory.available_bytes
    if not alone and memory.needed_bytes <= _CLOSE * memory.available_bytes:
        return
    start = f", {_text(memory.start_up_bytes)} before the first layer" if memory.start_up_bytes else ""
    parts = "" if alone else f"{start}, {_text(target.workspace_bytes or 0)} of workspace"
    yield Finding(
        "memory",
        "",
        "",
        "refused" if alone else "risky",
        f"{target.title} has {_text(memory.available_bytes)}; this needs {_text(memory.weights_bytes)} of weights and "
        f"{_text(memory.own_bytes - memory.weights_bytes)} of activations{parts} ({memory.note})",
        "use a smaller batch or resolution, FP16, or a smaller network; largest is "
        f"{memory.largest_tensor} ({_text(memory.largest_tensor_bytes)})"
        + ("" if alone else "; build headless, in a process of its own, with swap and a smaller workspace"),
    )


class _Sizes:
    """Bytes by tensor, for what nodes make and the network takes."""

    def __init__(self, graph: LintGraph) -> None:
        view, planned = graph.view, graph.half_planned or frozenset()
        self.full: dict[str, int] = {}
        self.half: dict[str, int] = {}
        unknown, is_open = 0, False
        made = [
            (name, node.name)
            for node in graph.model.graph.node
            if node.op_type not in _NO_TENSOR
            for name in node.output
            if name
        ]
        taken = [(value.name, "") for value in graph.model.graph.input if not view.is_constant(value.name)]
        for name, maker in (*taken, *made):
            shape, kind = view.shape(name), view.elem_type(name)
            if shape is None or not kind:
                unknown += 1
                continue
            is_open = is_open or None in shape
            extents = [1 if extent is None or extent < 0 else extent for extent in shape]
            self.full[name] = _bytes_of(kind, extents)
            halved = bool(maker) and maker in planned and view.is_float(name)
            self.half[name] = self.full[name] // _HALF_BYTES if halved else self.full[name]
        self.note = "open extents counted as 1" if is_open else "at the shapes of the file"
        if unknown:
            self.note += f"; {unknown} tensors of unknown shape left out"


def _peak(graph: LintGraph, sizes: Mapping[str, int]) -> int:
    """The most bytes that are live at once, in the order of the nodes."""
    nodes = graph.model.graph.node
    owner: dict[str, str] = {}
    for node in nodes:
        if node.op_type in _ALIASES and node.input and node.input[0] in sizes:
            owner[node.output[0]] = owner.get(node.input[0], node.input[0])
    bound = {value.name for value in (*graph.model.graph.input, *graph.model.graph.output)}
    kept = {owner.get(name, name) for name in bound}
    last = {owner.get(name, name): index for index, node in enumerate(nodes) for name in (*node.input, *node.output)}
    dying: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in kept:
            dying.setdefault(index, []).append(name)
    live = sum(sizes.get(name, 0) for name in kept)
    most = live
    for index, node in enumerate(nodes):
        live += sum(sizes.get(name, 0) for name in node.output if name not in owner and name not in kept)
        most = max(most, live)
        live -= sum(sizes.get(name, 0) for name in dying.get(index, ()))
    return most


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (item.t for item in node.attribute if item.HasField("t"))


def _bytes_of(elem_type: int, shape: Any) -> int:
    """Bits are rounded up to bytes; strings count as nothing."""
    count: int = math.prod(shape)
    return count * _item_bytes(elem_type)


@cache
def _item_bytes(elem_type: int) -> int:
    import onnx

    known = elem_type in onnx.TensorProto.DataType.values()
    if not known or elem_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        return 0
    return int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize)


def _text(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB" if size < 1 << 30 else f"{size / (1 << 30):.1f} GiB"
