"""An FP16 graph whose engine is FP32 is found by the tensors between its kernels, where there are any."""

from __future__ import annotations

from dataclasses import replace

import pytest
from onnx import TensorProto, helper

from deploy_attn.engines.rtx_log import Kernel
from deploy_attn.engines.rtx_precision import silently_fp32
from deploy_attn.engines.tensorrt_rtx import engine_from_onnx

# down -> relu -> exp -> up: FP16 from `half` to `e`.
NODES = [
    helper.make_node("Cast", ["x"], ["half"], "down", to=TensorProto.FLOAT16),
    helper.make_node("Relu", ["half"], ["r"], "relu"),
    helper.make_node("Exp", ["r"], ["e"], "exp"),
    helper.make_node("Cast", ["e"], ["y"], "up", to=TensorProto.FLOAT),
]
FLOAT, HALF = ("Float",), ("Half",)


def typed() -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (4, 4)) for name in "xy")
    graph = helper.make_graph(NODES, "graph", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def kernel(*nodes: str, read: tuple[str, ...] = FLOAT, written: tuple[str, ...] = FLOAT) -> Kernel:
    return Kernel("k", "kgen", 64, 64, nodes, read, written)


@pytest.mark.parametrize(
    ("kernels", "tensor"),
    [
        ([kernel("down", "relu"), kernel("exp", "up")], "r"),
        ([kernel("down"), kernel("relu", "exp", "up")], "half"),
        ([kernel("down", "relu", "exp"), kernel("up")], "e"),
        ([kernel("down", "relu", written=HALF), kernel("exp", "up", read=HALF)], None),
        ([kernel("down", "relu", written=FLOAT), kernel("exp", "up", read=HALF)], None),
        ([kernel("down", "relu", "exp", "up")], None),
        ([kernel("down", "relu", "exp"), kernel("exp", "up")], None),
        ([kernel("relu"), kernel("up")], None),
        ([], None),
    ],
)
def test_a_half_tensor_that_goes_from_one_kernel_to_another_must_be_seen(
    kernels: list[Kernel], tensor: str | None
) -> None:
    assert silently_fp32(typed(), kernels) == tensor


def test_an_engine_as_it_is_built_passes() -> None:
    engine = engine_from_onnx(typed())
    assert silently_fp32(typed(), engine.kernels) is None
    single = [replace(one, types_read=FLOAT, types_written=FLOAT) for one in engine.kernels]
    assert len(single) == 1
    assert silently_fp32(typed(), single) is None
