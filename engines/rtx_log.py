"""What the log of TensorRT-RTX's builder says: kernels, memory, warnings, conditions on open sizes.

Whatever is not understood is an error: a log of another form must not read as
an engine without kernels.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from deploy_attn.jetson.errors import DeployAttnError

_NO_GPU = "CUDA driver version is insufficient"  # follows any error on a machine without one
_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<type>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"(?:Constants: \[.*?\], )?Outputs: \[(?P<outputs>.*?)\], (?:TacticName|ParameterType): "
    r".*?, Metadata: ?(?P<nodes>.*)"
)
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), (?:Location: \w+, )?Dimensions: \[(?P<extents>[-\d,]*)\].*?, Datatype: (?P<type>\w+),"
)
_NODE = re.compile(r"\[ONNX Layer: (?P<name>.*)\](?:__\w+)?")  # a node that was rewritten says as what
_BAKED = re.compile(r"\(EQUAL (-?\d+ .+|.+ -?\d+)\)|\(RESHAPE .+ \|[-\d ]+\)")  # an open size must be a number
_ITEM_BYTES = {
    **dict.fromkeys(("Int64", "Double"), 8),
    **dict.fromkeys(("Float", "Int32"), 4),
    **dict.fromkeys(("Half", "BFloat16"), 2),
    **dict.fromkeys(("Int8", "UInt8", "Bool", "FP8"), 1),
}


class Message(NamedTuple):
    """One message; severities are `ERROR`, `WARNING` ..."""

    severity: str
    text: str


@dataclass(frozen=True)
class Kernel:
    """One layer of a finished engine.

    Attributes:
        layer_type: the builder's word, as `kgen` (generated), `gemm`, `correlation` (a convolution).
        bytes_read: its inputs, without weights; None if an extent is known at run time only.
        bytes_written: its outputs, workspaces included; None likewise.
        onnx_nodes: the nodes that it computes all or a part of; none for a change of layout.
        types_read: the types of its inputs in the builder's words, as `Half`, each once.
        types_written: those of its outputs.
    """

    name: str
    layer_type: str
    bytes_read: int | None
    bytes_written: int | None
    onnx_nodes: tuple[str, ...]
    types_read: tuple[str, ...] = ()
    types_written: tuple[str, ...] = ()


def kernels(messages: Sequence[Message]) -> tuple[Kernel, ...]:
    """The final list of kernels.

    Raises:
        DeployAttnError: there is not exactly one list, or a line of it is not understood.
    """
    lists = [text for _, text in messages if text.startswith("Layers:\n")]
    if len(lists) != 1:
        raise _not_understood(f"it has {len(lists)} lists of kernels")
    layers = [_layer(line) for line in lists[0].split("\n\n")[0].splitlines()[1:]]
    if not layers:
        raise _not_understood("its list of kernels is empty")
    whole = _whole_sizes([tensor for layer in layers for tensor in (*layer.inputs, *layer.outputs)])
    return tuple(
        Kernel(
            layer.name,
            layer.layer_type,
            _moved(layer.inputs, whole),
            _moved(layer.outputs, whole),
            layer.nodes,
            _types(layer.inputs),
            _types(layer.outputs),
        )
        for layer in layers
    )


def stated_bytes(messages: Sequence[Message], what: str) -> int:
    """The figure of a line as `Max Scratch Memory: 1536 bytes`."""
    for _, text in messages:
        if match := re.fullmatch(rf"{what}: (\d+) bytes", text):
            return int(match[1])
    raise _not_understood(f"{what!r} is missing")


def warnings(messages: Sequence[Message]) -> list[str]:
    return [text for severity, text in messages if severity == "WARNING"]


def errors(messages: Sequence[Message]) -> list[str]:
    return [text for severity, text in messages if severity.endswith("ERROR") and _NO_GPU not in text]


def without_gpu_noise(reason: str) -> str:
    """A parser's reason on one line."""
    return "; ".join(line for line in reason.splitlines() if _NO_GPU not in line)


def size_conditions(messages: Sequence[Message]) -> list[str]:
    """What the engine asks of open sizes at run time; a graph that takes every size has none."""
    lines = [text.strip() for _, text in messages]
    if "SYMBOLIC CHECKS" not in lines:
        return []  # the builder refused the graph before it came to them
    start = lines.index("SYMBOLIC CHECKS") + 1
    checks = lines[start : lines.index("GRAPH NODES", start)]
    conditions, reasons = checks[::2], checks[1::2]
    if len(conditions) != len(reasons) or not all(text.startswith("(") for text in conditions):
        raise _not_understood(f"its conditions on sizes are {checks!r}")
    return [f"{reason} It needs {condition}." for condition, reason in zip(conditions, reasons)]


def contradictions(messages: Sequence[Message]) -> list[str]:
    """Where a size that the profile leaves open is a number in the graph.

    The builder only warns, and only where an end of the profile fails; what it
    notes as a condition for run time tells the rest.
    """
    ends = [text for text in warnings(messages) if re.match(r"Profile k\w+ values are not self-consistent", text)]
    return ends + [text for text in size_conditions(messages) if _BAKED.search(text)]


class _Tensor(NamedTuple):
    """A tensor or a view of one; its size is None if an extent is open."""

    name: str
    size: int | None
    dtype: str


class _Layer(NamedTuple):
    name: str
    layer_type: str
    inputs: list[_Tensor]
    outputs: list[_Tensor]
    nodes: tuple[str, ...]


def _layer(line: str) -> _Layer:
    """One line of the list."""
    match = _LAYER.fullmatch(line)
    if match is None:
        raise _not_understood(f"a line of its list of kernels is {line!r}")
    return _Layer(
        match["name"], match["type"], _tensors(match["inputs"]), _tensors(match["outputs"]), _nodes(match["nodes"])
    )


def _nodes(text: str) -> tuple[str, ...]:
    matches = [_NODE.fullmatch(part) for part in text.split("\x1f") if part]
    names = tuple(match["name"] for match in matches if match)
    if len(names) != len(matches):
        raise _not_understood(f"a kernel comes from {text!r}")
    return names


def _tensors(text: str) -> list[_Tensor]:
    matches = list(_TENSOR.finditer(text))
    if len(matches) != text.count("{ Name: "):
        raise _not_understood(f"a kernel has the tensors {text!r}")
    return [_Tensor(match["name"], _size(match["extents"], match["type"]), match["type"]) for match in matches]


def _size(extents: str, dtype: str) -> int | None:
    if dtype not in _ITEM_BYTES:
        raise _not_understood(f"a tensor is of type {dtype}")
    numbers = [int(extent) for extent in extents.split(",") if extent]
    return None if min(numbers, default=1) < 0 else math.prod(numbers) * _ITEM_BYTES[dtype]


def _types(tensors: Sequence[_Tensor]) -> tuple[str, ...]:
    return tuple(sorted({tensor.dtype for tensor in tensors}))


def _whole_sizes(tensors: Sequence[_Tensor]) -> dict[str, int]:
    """The largest view of each tensor."""
    whole: dict[str, int] = defaultdict(int)
    for tensor in tensors:
        whole[tensor.name] = max(whole[tensor.name], tensor.size or 0)
    return whole


def _moved(tensors: Sequence[_Tensor], whole: Mapping[str, int]) -> int | None:
    """The bytes of the tensors, each counted once however often a kernel lists it.

    Views of one tensor may be the same part of it or different parts: they
    count together, up to the whole tensor.
    """
    viewed: dict[str, int] = defaultdict(int)
    for tensor in tensors:
        if tensor.size is None:
            return None
        viewed[tensor.name] += tensor.size
    return sum(min(size, whole[name]) for name, size in viewed.items())


def _not_understood(what: str) -> DeployAttnError:
    return DeployAttnError(
        f"The log of TensorRT-RTX's builder is not understood: {what}. Its form changes with the version; "
        "1.7.1.116 is known to work."
    )
