"""A small gate as a graph, FP32 and typed, its plan, and a build of it in a fake TensorRT, in this process."""

import sys
from pathlib import Path
from typing import Any, Dict, Mapping, Sequence, Union

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy_attn.jetson import tensorrt_build
from tests.jetson.fake_tensorrt import versions
from tests.jetson.fake_tensorrt.builder import split_engine

Shape = Sequence[Union[int, str]]
FAKES = Path(__file__).parent / "fake_tensorrt"
PLAN = {"squeeze": "fp32", "conv": "fp16", "act": "fp16", "scale": "fp16", "gate": "fp16"}
WEAK = ("8.0", "8.2", "8.4", "8.5", "8.6", "10")
STRONG = ("10", "11")


def gate(
    shape: Sequence[Union[int, str]] = (1, 4, 8, 8), typed: bool = False, extra: Sequence[onnx.NodeProto] = ()
) -> bytes:
    """x -> squeeze (mean) -> conv -> act -> scale -> gate (times x) -> y; typed keeps only the mean in FP32."""
    kind = np.float16 if typed else np.float32
    half = TensorProto.FLOAT16
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], "squeeze", axes=[2, 3]),
        helper.make_node("Conv", ["m", "weight"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "act"),
        helper.make_node("Mul", ["r", "factor"], ["s"], "scale"),
        helper.make_node("Mul", ["s", "half_x" if typed else "x"], ["g"], "gate"),
    ]
    if typed:
        nodes.insert(1, helper.make_node("Cast", ["mean"], ["m"], "down", to=half))
        nodes.insert(2, helper.make_node("Cast", ["x"], ["half_x"], "down_x", to=half))
        nodes.append(helper.make_node("Cast", ["g"], ["y"], "up", to=TensorProto.FLOAT))
    else:
        nodes[0].output[0], nodes[-1].output[0] = "m", "y"
    constants = {"weight": np.ones((4, 4, 1, 1), kind), "factor": np.full((1,), 2, kind)}
    return saved([*nodes, *extra], shape, constants)


def saved(
    nodes: Sequence[onnx.NodeProto], shape: Sequence[Union[int, str]], constants: Mapping[str, Any] = {}
) -> bytes:
    """x -> y."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", 13)
    content: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=7).SerializeToString()
    return content


def request(**asked: Any) -> Dict[str, Any]:
    """A request as `tensorrt_child.build` completes it; FP32 unless told otherwise."""
    return {
        "module": "tensorrt",
        "profile": {},
        "compute_capability": None,
        "precision": "fp32",
        "typed": False,
        "plan": {},
        "workspace_bytes": None,
        "timing_cache": None,
        "version_compatible": False,
        "hardware_compatible": False,
        **asked,
    }


class Bench:
    """Builds in a folder with the fake of a version."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = patch
        self.folder = folder

    def build(self, version: str, model: bytes, **asked: Any) -> Dict[str, Any]:
        """The outcome."""
        self._patch.setitem(sys.modules, "tensorrt", versions.module(version))
        (self.folder / tensorrt_build.MODEL).write_bytes(model)
        outcome = tensorrt_build.blank_outcome()
        tensorrt_build.build(str(self.folder), request(**asked), outcome)
        return outcome

    def header(self) -> Dict[str, Any]:
        """What the builder was asked, as its engine tells."""
        return split_engine((self.folder / tensorrt_build.ENGINE).read_bytes())[0]
