"""Pools: dimensions, dilations, pads, and windows that are too large."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, label
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

_POOLS = ("AveragePool", "MaxPool", "LpPool")
_MOST_DIMENSIONS = 3
_READS_LP_DILATIONS = (10, 0)
_ANY_PADS = (10, 0)
# The layer's own check, `volume(windowSize) < maxKernelDimsProduct`: 316 x 316 builds and 317 x 317 is
# refused in TensorRT 8.4, 8.6 (NVIDIA/TensorRT#2094, onnx-tensorrt#937) and TensorRT-RTX 1.7.1.
_WINDOW_2D, _WINDOW_3D = 100_000, 10_000_000
_SLOW_WINDOW = 1024  # derived: one thread sums a window; a reduction shares it among many
_REDUCE = MappingProxyType(
    {
        "AveragePool": "use GlobalAveragePool or ReduceMean",
        "MaxPool": "use GlobalMaxPool or ReduceMax",
        "LpPool": "use ReduceL1 or ReduceL2",
    }
)


def pool_forms(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Pools are 1D (as 2D), 2D or 3D, without dilation and without an output of indices."""
    for node in graph.named(*_POOLS):
        kernel = attribute(node, "kernel_shape", [])
        if len(kernel) > _MOST_DIMENSIONS:
            yield _refused(node, "pool-dimensions", f"pools over 2 or 3 dimensions, not {len(kernel)}", "pool in steps")
        if any(dilation != 1 for dilation in attribute(node, "dilations", [])):
            yield _dilated(node, parser)
        if node.op_type == "LpPool" and attribute(node, "p", 2) not in (1, 2):
            yield _refused(node, "pool-norm", "takes LpPool with p of 1 or 2 only", "write the powers as nodes")
        if node.op_type == "MaxPool" and len(node.output) > 1:
            yield _refused(
                node, "pool-indices", "has no MaxPool with the output Indices", "remove that output and what reads it"
            )


def average_pads(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Before 10.0 an AveragePool's end pads may exceed its begin pads by one, and differ in no other way."""
    if parser.version >= _ANY_PADS:
        return
    for node in graph.named("AveragePool"):
        pads = attribute(node, "pads", [])
        half = len(pads) // 2
        if any(pads[half + axis] - pads[axis] not in (0, 1) for axis in range(min(half, 2))):
            yield _refused(
                node,
                "average-pool-pads",
                f"before 10.0 takes pads that are equal, or one more at the end; these are {list(pads)}",
                "pad with a Pad node before the pool, if padding counts, or pad evenly",
            )


def pool_windows(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """A window of 100,000 elements (2D) is refused; one that covers the whole map is slow as a pool."""
    for node in graph.named(*_POOLS):
        kernel = attribute(node, "kernel_shape", [])
        volume, most = math.prod(kernel), _WINDOW_3D if len(kernel) == _MOST_DIMENSIONS else _WINDOW_2D
        covers = kernel and (graph.view.shape(node.input[0]) or [])[2:] == list(kernel)
        size = " x ".join(map(str, kernel))
        if volume >= most:
            yield Finding(
                "pool-window",
                label(node),
                node.op_type,
                "refused",
                f"TensorRT takes windows below {most:,} elements, and the parser of 8.x crashes on this "
                f"(third party; tried in TensorRT-RTX); {size} has {volume:,}",
                _REDUCE[node.op_type] if covers else "pool in two steps",
            )
        elif covers and volume >= _SLOW_WINDOW:
            yield Finding(
                "pool-window",
                label(node),
                node.op_type,
                "slow",
                f"the window of {size} covers the whole map: as a pool, one thread sums all of it (derived); "
                f"from {most:,} elements on it is refused",
                _REDUCE[node.op_type],
            )


def _dilated(node: onnx.NodeProto, parser: Parser) -> Finding:
    why, remedy = "takes pools without dilation only", "slice the map by phase and pool each, or pool without dilation"
    if node.op_type == "LpPool" and parser.version < _READS_LP_DILATIONS:
        why = "TensorRT before 10.0 does not read the dilations of LpPool and pools without them"
        return Finding("pool-dilations", label(node), node.op_type, "wrong result", why, remedy)
    return _refused(node, "pool-dilations", why, remedy)


def _refused(node: onnx.NodeProto, rule: str, why: str, remedy: str) -> Finding:
    return Finding(rule, label(node), node.op_type, "refused", f"TensorRT {why}", remedy)
