"""The largest magnitude that each tensor of a graph takes on given inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.shapes import inferred_shapes

if TYPE_CHECKING:
    import numpy as np
    import onnx


def tensor_ranges(model: onnx.ModelProto, feeds: Iterable[Mapping[str, np.ndarray[Any, Any]]]) -> dict[str, float]:
    """max |x| of every FP32 tensor, inputs and weights included, over all feeds.

    The graph runs unoptimised in FP32, so that each tensor exists as written.
    """
    import numpy as np
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {value.name for value in watched.graph.output}
    inferred = inferred_shapes(model).value_info
    floats = [value for value in inferred if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    watched.graph.output.extend(value for value in floats if value.name not in present)
    largest: dict[str, float] = {}
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            largest[tensor.name] = _magnitude(onnx.numpy_helper.to_array(tensor))
    with OnnxRuntimeRunner(watched.SerializeToString(), optimise=False) as run:
        for feed in feeds:
            for name, array in {**dict(feed), **run.infer(feed)}.items():
                if array.dtype == np.float32:
                    largest[name] = max(largest.get(name, 0.0), _magnitude(array))
    return largest


def _magnitude(array: np.ndarray[Any, Any]) -> float:
    """max |x|; infinite if anything is not finite."""
    import numpy as np

    if array.size == 0:
        return 0.0
    largest = float(np.abs(array).max())
    return largest if np.isfinite(largest) else float("inf")
