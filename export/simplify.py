"""onnxsim under guard: kept only where it is proven to change nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.base import Outputs
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.export.onnx_from_module import GraphRequest, checked
from deploy_attn.export.stdout import stderr_to
from deploy_attn.jetson.errors import DeployAttnError, first_line
from deploy_attn.jetson.metrics import compare

if TYPE_CHECKING:
    import numpy as np
    import onnx

_BOUND = 1e-6
# It would take the 0.5 of a Gelu into the convolution behind it, and onnxruntime would not know the Gelu any more.
_LEFT_OUT = ("fuse_preceding_mul_into_conv",)
# Operators that folding can remove. A graph without any is left as it is, and onnxsim is not even imported.
_FOLDABLE = frozenset(
    [
        "BatchNormalization",
        "Cast",
        "ConstantOfShape",
        "Dropout",
        "Expand",
        "Identity",
        "Pad",
        "Shape",
        "Size",
        "Squeeze",
        "Unsqueeze",
    ]
)


@dataclass(frozen=True)
class Simplified:
    """The graph to go on with, and what was done to it: `applied`, `not needed` or `rolled back: why`."""

    model: onnx.ModelProto
    outcome: str


def simplify(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray[Any, Any]], request: GraphRequest) -> Simplified:
    """Folds constants and merges nodes with onnxsim, or rolls back.

    Rolled back where onnxsim fails, its graph is invalid or of another opset,
    its interface or node names are not usable, or its outputs differ from
    before by more than 1e-6 RMS relative on `feeds`.
    """
    if not _can_fold(model.graph):
        return Simplified(model, "not needed")
    import onnxsim

    try:
        with stderr_to(os.devnull):  # of each fold that it leaves out it prints the stack
            candidate, _ = onnxsim.simplify(model, check_n=0, skipped_optimizers=list(_LEFT_OUT))
        candidate = checked(candidate, request)
    except Exception as error:  # whatever it throws, the graph before it stands
        return Simplified(model, f"rolled back: {first_line(error)}")
    problem = _interface_change(model, candidate) or _difference(model, candidate, feeds)
    if problem:
        return Simplified(model, f"rolled back: {problem}")
    return Simplified(candidate, "applied")


def _can_fold(graph: onnx.GraphProto) -> bool:
    """Whether anything may fold. A Transpose does into another one or into a constant, not by itself."""
    folding = {tensor.name for tensor in graph.initializer}
    folding.update(name for node in graph.node if node.op_type == "Transpose" for name in node.output)
    return any(
        node.op_type in _FOLDABLE or (node.op_type == "Transpose" and node.input[0] in folding) for node in graph.node
    )


def _interface_change(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    for kind in ("input", "output"):
        old, new = getattr(before.graph, kind), getattr(after.graph, kind)
        if [value.SerializeToString() for value in old] != [value.SerializeToString() for value in new]:
            return f"it changed the graph's {kind}s"
    names = [node.name for node in after.graph.node]
    if "" in names or len(set(names)) < len(names):
        return "it left nodes without a name of their own"
    return None


def _difference(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Mapping[str, np.ndarray[Any, Any]]
) -> str | None:
    wanted = _outputs(before, feeds)
    try:
        got = _outputs(after, feeds)
    except DeployAttnError as error:
        return str(error)
    for name, expected in wanted.items():
        if got[name].shape != expected.shape:
            return f"it changed the shape of {name}"
        apart = compare(got[name], expected)
        if not apart.rms_relative <= _BOUND:
            return f"it changed {name} by {apart.rms_relative:.1e} RMS relative"
    return None


def _outputs(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Outputs:
    try:
        with OnnxRuntimeRunner(model.SerializeToString()) as run:
            return run.infer(feeds)
    except DeployAttnError:
        raise
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise DeployAttnError(f"onnxruntime refuses its graph: {first_line(error)}") from error
