"""Whether an engine of TensorRT-RTX really computes in FP16, as far as its list of kernels can tell.

A tensor that one kernel writes and another reads has its type in the list. What
stays inside a kernel has not: a module that is one kernel, with FP32 inputs and
outputs, shows nothing either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deploy_attn.engines.rounding import half_tensors
from deploy_attn.engines.rtx_log import Kernel

if TYPE_CHECKING:
    pass

_HALF = "Half"


def silently_fp32(typed_model: bytes, kernels: Sequence[Kernel]) -> str | None:
    """The name of a tensor that must be in FP16 between two kernels of an engine that has none in FP16; else None.

    Args:
        typed_model: the FP16 graph that the engine was built from, as a file holds it.
    """
    if any(_HALF in (*kernel.types_read, *kernel.types_written) for kernel in kernels):
        return None
    import onnx

    model = onnx.load_from_string(typed_model)
    places = _places(kernels)
    half = half_tensors(model)
    producers = {name: node.name for node in model.graph.node for name in node.output if name in half}
    for node in model.graph.node:
        for name in node.input:
            written, read = places.get(producers.get(name, ""), set()), places.get(node.name, set())
            if written and read and not written & read:
                return str(name)
    return None


def _places(kernels: Sequence[Kernel]) -> Mapping[str, set[int]]:
    """By node, the kernels that compute all or a part of it."""
    places: dict[str, set[int]] = {}
    for index, kernel in enumerate(kernels):
        for node in kernel.onnx_nodes:
            places.setdefault(node, set()).add(index)
    return places
