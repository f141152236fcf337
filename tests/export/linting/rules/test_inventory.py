"""Every trap that TensorRT's parsers set, on a graph that has it, beside a graph that computes the same without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.export.linting.graphs import FLOAT, Shape, findings, found, model_of, node, one

BOOL, INT64, UINT8 = TensorProto.BOOL, TensorProto.INT64, TensorProto.UINT8
MAP: Shape = (1, 8, 4, 4)
NO_HALF: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Trap:
    """A graph, the rule that has to find it, its effect, and the graph that mends it."""

    name: str
    rule: str
    effect: str
    trapped: onnx.ModelProto
    mended: onnx.ModelProto
    target: str = "jetson-nano"


def bottom() -> onnx.ModelProto:
    top = node("TopK", "x k", "values i", largest=0)
    return model_of(top, {"x": (4, 8)}, {"values": (FLOAT, None)}, {"k": [2]})


def smallest() -> onnx.ModelProto:
    nodes = [
        node("Neg", "x", "negative"),
        node("TopK", "negative k", "largest i"),
        node("Neg", "largest", "values", "Neg_1"),
    ]
    return model_of(nodes, {"x": (4, 8)}, {"values": (FLOAT, None)}, {"k": [2]})


def scatter(op_type: str) -> onnx.ModelProto:
    constants = {"i": [[0]] if op_type == "ScatterND" else [[0, 0, 0, 0, 0]]}
    scattered = node(op_type, "x i u", "y", reduction="add")
    return model_of(scattered, {"x": (4, 5), "u": (1, 5)}, {"y": (FLOAT, None)}, constants, 16)


def accumulated() -> onnx.ModelProto:
    nodes = [
        node("Gather", "x rows", "row", axis=0),
        node("Add", "row u", "sum"),
        node("ScatterND", "x i sum", "y"),
    ]
    constants = {"rows": [0], "i": [[0]]}
    return model_of(nodes, {"x": (4, 5), "u": (1, 5)}, {"y": (FLOAT, None)}, constants)


def pad(inputs: str, opset: int, **constants: list[int]) -> onnx.ModelProto:
    return model_of(node("Pad", inputs, "y"), {"x": MAP}, {"y": (FLOAT, None)}, constants, opset)


def normalised(op_type: str, opset: int, entries: int = 8, **attributes: Any) -> onnx.ModelProto:
    constants = {"scale": np.ones(entries, np.float32), "bias": np.zeros(entries, np.float32)}
    layer = node(op_type, "x scale bias", "y", **attributes)
    return model_of(layer, {"x": MAP}, {"y": (FLOAT, None)}, constants, opset)


def decomposed(groups: int) -> onnx.ModelProto:
    """Normalised over groups of channels, scaled by channel."""
    nodes = [
        node("Reshape", "x grouped", "g"),
        node("ReduceMean", "g", "mean", axes=[2]),
        node("Sub", "g mean", "centred"),
        node("Mul", "centred centred", "square"),
        node("ReduceMean", "square", "variance", "ReduceMean_1", axes=[2]),
        node("Add", "variance eps", "shifted"),
        node("Sqrt", "shifted", "deviation"),
        node("Div", "centred deviation", "z"),
        node("Reshape", "z whole", "n", "Reshape_1"),
        node("Mul", "n scale", "scaled", "Mul_1"),
        node("Add", "scaled bias", "y", "Add_1"),
    ]
    constants: dict[str, Any] = {
        "grouped": [1, groups, -1],
        "whole": [1, 8, 4, 4],
        "eps": np.float32(1e-5),
        "scale": np.ones((1, 8, 1, 1), np.float32),
        "bias": np.zeros((1, 8, 1, 1), np.float32),
    }
    return model_of(nodes, {"x": MAP}, {"y": (FLOAT, None)}, constants)


def gathered(dtype: int) -> onnx.ModelProto:
    """Some of a mask that is made here, by way of FP32 or not."""
    data = "mask" if dtype == BOOL else "floats"
    nodes = [node("Greater", "x zero", "mask")]
    if dtype != BOOL:
        nodes.append(node("Cast", "mask", "floats", to=dtype))
    nodes += [node("Gather", f"{data} i", "some", axis=1), node("Cast", "some", "y", "Cast_1", to=FLOAT)]
    constants = {"zero": np.float32(0), "i": [0, 1]}
    return model_of(nodes, {"x": (1, 8)}, {"y": (FLOAT, None)}, constants)


def image(dtype: int) -> onnx.ModelProto:
    if dtype == FLOAT:
        return one("Relu", MAP)
    nodes = [node("Cast", "x", "f", to=FLOAT), node("Relu", "f", "y")]
    return model_of(nodes, {"x": (dtype, MAP)}, {"y": (FLOAT, None)})


def at_most(limit: int, stored: type) -> onnx.ModelProto:
    """Which values are below a limit that is stored as INT64 or as FP32."""
    nodes = [node("Less", "x limit", "y")]
    if stored is np.int64:
        nodes = [node("Cast", "limit", "converted", to=FLOAT), node("Less", "x converted", "y")]
    return model_of(nodes, {"x": (4,)}, {"y": (BOOL, None)}, {"limit": np.array([limit], stored)})


def product(equation: str) -> onnx.ModelProto:
    return model_of(
        node("Einsum", "x z", "y", equation=equation), {"x": (2, 3, 4), "z": (2, 4, 5)}, {"y": (FLOAT, None)}
    )


def ran(model: onnx.ModelProto) -> np.ndarray[Any, Any]:
    """The model's first output in onnxruntime, of inputs that depend on their shapes only."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng, feeds = np.random.default_rng(5), {}
    for value in session.get_inputs():
        whole = rng.integers(1, 200, value.shape)
        feeds[value.name] = whole.astype(np.uint8 if value.type == "tensor(uint8)" else np.float32)
    first: np.ndarray[Any, Any] = session.run(None, feeds)[0]
    return first


REDUCTIONS = ["ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"]
TRAPS = [
    *(
        Trap(
            op_type,
            "reduce-axes-input",
            "wrong result",
            one(op_type, MAP, {"axes": [1]}, 18),
            one(op_type, MAP, axes=[1]),
        )
        for op_type in (*REDUCTIONS, "ReduceLogSumExp")
    ),
    Trap(
        "Reshape without allowzero",
        "reshape-allowzero",
        "refused",
        one("Reshape", (4, 6), {"shape": [2, -1]}, 14),
        one("Reshape", (4, 6), {"shape": [2, -1]}, 13),
    ),
    Trap("TopK of the smallest", "topk-smallest", "wrong result", bottom(), smallest()),
    Trap(
        "ScatterND that adds",
        "scatter-reduction",
        "wrong result",
        scatter("ScatterND"),
        accumulated(),
    ),
    Trap(
        "ScatterElements that adds",
        "scatter-reduction",
        "wrong result",
        scatter("ScatterElements"),
        accumulated(),
    ),
    Trap(
        "Pad of some axes",
        "pad-axes",
        "wrong result",
        pad("x pads - axes", 18, pads=[1, 1], axes=[2]),
        pad("x pads", 13, pads=[0, 0, 1, 0, 0, 0, 1, 0]),
    ),
    Trap(
        "Pad of the last axes",
        "pad-axes",
        "wrong result",
        pad("x pads - axes", 18, pads=[1, 1, 1, 1], axes=[2, 3]),
        pad("x pads", 13, pads=[0, 0, 1, 1, 0, 0, 1, 1]),
    ),
    Trap(
        "GroupNormalization",
        "unsupported-operator",
        "refused",
        normalised("GroupNormalization", 21, num_groups=2),
        decomposed(2),
    ),
    Trap(
        "GroupNormalization by channel",
        "group-normalization-layout",
        "wrong result",
        normalised("GroupNormalization", 21, num_groups=2),
        normalised("GroupNormalization", 18, 2, num_groups=2),
        "jetson-orin-nano",
    ),
    Trap(
        "InstanceNormalization",
        "instance-normalization-plugin",
        "risky",
        normalised("InstanceNormalization", 13),
        decomposed(8),
    ),
    Trap("INT64 beyond INT32", "int64-clamped", "wrong result", at_most(2**40, np.int64), at_most(2**40, np.float32)),
    Trap("UINT8 image", "port-type", "refused", image(UINT8), image(FLOAT)),
    Trap("BOOL that is gathered", "bool-operand", "refused", gathered(BOOL), gathered(FLOAT)),
]


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_a_trap_is_found_with_its_effect(trap: Trap) -> None:
    effects = {item.effect for item in findings(trap.trapped, trap.target, NO_HALF) if item.rule == trap.rule}
    assert effects == {trap.effect}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_the_mended_graph_is_quiet(trap: Trap) -> None:
    assert found(trap.mended, trap.target, NO_HALF) == []


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_a_finding_names_node_reason_and_remedy(trap: Trap) -> None:
    for item in findings(trap.trapped, trap.target, NO_HALF):
        if item.rule == trap.rule:
            assert item.node
            assert item.why
            assert item.remedy


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_the_mended_graph_computes_what_the_trapped_one_means(trap: Trap) -> None:
    meant, computed = ran(trap.trapped), ran(trap.mended)
    assert meant.shape == computed.shape
    np.testing.assert_allclose(computed, meant, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("trapped", "mended"),
    [
        pytest.param(
            model_of(
                node("MaxPool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2]), {"x": MAP}, {"y": (FLOAT, None)}
            ),
            model_of(node("MaxPool", "x", "y", kernel_shape=[2, 2]), {"x": MAP}, {"y": (FLOAT, None)}),
            id="dilated MaxPool",
        ),
        pytest.param(product("...ij,...jk->...ik"), product("bij,bjk->bik"), id="Einsum with an ellipsis"),
        pytest.param(
            one("LayerNormalization", (1, 4, 8), {"scale": np.ones(8, np.float32)}, 17),
            one("Softmax", (1, 4, 8)),
            id="LayerNormalization",
        ),
    ],
)
def test_what_is_refused_is_an_error(trapped: onnx.ModelProto, mended: onnx.ModelProto) -> None:
    assert any(item.is_error for item in findings(trapped, half_planned=NO_HALF))
    assert found(mended, half_planned=NO_HALF) == []
