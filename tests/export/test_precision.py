"""Holds the FP16 plan: each rule where it fires and where it only nearly does, and a reason for every node."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

import onnx
import pytest
import torch

import deploy_attn
from deploy_attn.export.graph_view import GraphView
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import FP16_LARGEST, NodePlan, PrecisionPlan, plan_from_graph
from tests.deploy_attn.catalogue_cases import small

WEIGHT = "<float[4, 4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}>"


def _parsed(graph: str, opset: int = 17) -> onnx.ModelProto:
    """The graph of the text; a node without a name is called as what it makes."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {graph}')
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return model


def _measured(model: onnx.ModelProto) -> dict[str, float]:
    """Ranges as of a run in which no value exceeds 1."""
    return {name: 1.0 for node in model.graph.node for name in (*node.input, *node.output)} | {
        tensor.name: float(abs(onnx.numpy_helper.to_array(tensor)).max()) for tensor in model.graph.initializer
    }


def _plan(graph: str, opset: int = 17, ranges: Mapping[str, float] | None = None) -> PrecisionPlan:
    model = _parsed(graph, opset)
    return plan_from_graph(model, {**_measured(model), **(ranges or {})})


def _node(plan: PrecisionPlan, name: str = "n") -> NodePlan:
    return next(node for node in plan.nodes if node.node == name)


def _expect(node: NodePlan, why: str | None) -> None:
    """FP32 with a reason like `why`, or FP16 where that is None."""
    if why is None:
        assert (node.precision, node.reason[:7]) == ("fp16", "largest"), node
    else:
        assert node.precision == "fp32"
        assert re.search(why, node.reason), node


@pytest.mark.parametrize(
    ("call", "why"),
    [
        pytest.param("Mul(x, x)", "^square", id="x times x"),
        pytest.param("Mul(x, z)", None, id="x times z"),
        pytest.param("Mul(x, two)", None, id="x times 2"),
        pytest.param("Add(x, x)", None, id="x plus x"),
        pytest.param("Pow(x, two)", "^power", id="power 2"),
        pytest.param("Pow(x, three)", "^power", id="power 3"),
        pytest.param("Pow(x, minus)", "^power", id="power -2"),
        pytest.param("Pow(x, whole)", "^power", id="integer power 2"),
        pytest.param("Pow(x, z)", "^power", id="a power that is computed"),
        pytest.param("Pow(x, half)", None, id="power 0.5"),
        pytest.param("Pow(x, one)", None, id="power 1"),
    ],
)
def test_squares_stay_in_fp32(call: str, why: str | None) -> None:
    plan = _plan(
        "g (float[2] x, float[2] z) => (float[2] y) <float two = {2}, float three = {3}, float minus = {-2}, "
        f"float half = {{0.5}}, float one = {{1}}, int64 whole = {{2}}> {{ [n] y = {call} }}"
    )
    _expect(_node(plan), why)


@pytest.mark.parametrize(
    ("call", "opset", "why"),
    [
        pytest.param("ReduceMean<axes = [2, 3]>(x)", 13, r"H x W \(64 values\)", id="ReduceMean at 13"),
        pytest.param("ReduceMean<axes = [-1, -2]>(x)", 13, r"H x W \(64 values\)", id="ReduceMean, negative axes"),
        pytest.param("ReduceMean(x, hw)", 18, r"H x W \(64 values\)", id="ReduceMean at 18"),
        pytest.param("ReduceMean(x, back)", 18, r"H x W \(64 values\)", id="ReduceMean at 18, negative axes"),
        pytest.param("ReduceMean(x)", 13, r"H x W \(256 values\)", id="ReduceMean over all"),
        pytest.param("ReduceSum(x, hw)", 13, r"H x W \(64 values\)", id="ReduceSum at 13"),
        pytest.param("ReduceSum(x, back)", 18, r"H x W \(64 values\)", id="ReduceSum at 18, negative axes"),
        pytest.param("ReduceL1<axes = [2, 3]>(x)", 13, r"H x W \(64 values\)", id="ReduceL1"),
        pytest.param("GlobalAveragePool(x)", 13, r"H x W \(64 values\)", id="GlobalAveragePool"),
        pytest.param("AveragePool<kernel_shape = [4, 4]>(x)", 13, r"H x W \(16 values\)", id="AveragePool of 16"),
        pytest.param("AveragePool<kernel_shape = [3, 5]>(x)", 13, None, id="AveragePool of 15"),
        pytest.param("ReduceMean<axes = [3]>(x)", 13, None, id="ReduceMean of 8"),
        pytest.param("ReduceMean<axes = [1]>(x)", 13, None, id="ReduceMean over channels"),
        pytest.param("ReduceMax<axes = [2, 3]>(x)", 13, None, id="ReduceMax"),
        pytest.param("ReduceMin<axes = [2, 3]>(x)", 13, None, id="ReduceMin"),
        pytest.param("GlobalMaxPool(x)", 13, None, id="GlobalMaxPool"),
        pytest.param("MaxPool<kernel_shape = [8, 8]>(x)", 13, None, id="MaxPool"),
    ],
)
def test_sums_over_the_map_stay_in_fp32(call: str, opset: int, why: str | None) -> None:
    plan = _plan(
        "g (float[1, 4, 8, 8] x) => (float[] y) <int64[2] hw = {2, 3}, int64[2] back = {-2, -1}> "
        f"{{ [n] y = {call} }}",
        opset,
    )
    _expect(_node(plan), why)


@pytest.mark.parametrize(("extents", "why"), [("3, 5", None), ("4, 4", "16 values"), ("1, 16", "16 values")])
def test_a_map_of_16_values_is_where_a_sum_over_it_becomes_wide(extents: str, why: str | None) -> None:
    plan = _plan(f"g (float[1, 4, {extents}] x) => (float[1, 4, 1, 1] y) {{ [n] y = GlobalAveragePool(x) }}")
    _expect(_node(plan), why)


@pytest.mark.parametrize("shape", ["1, 4, h, 8", "1, 4, h, w"])
def test_a_sum_over_an_open_extent_stays_in_fp32(shape: str) -> None:
    plan = _plan(f"g (float[{shape}] x) => (float[1, 4, 1, 1] y) {{ [n] y = GlobalAveragePool(x) }}")
    _expect(_node(plan), "only known at run time")


@pytest.mark.parametrize("call", ["GlobalAveragePool(t)", "ReduceMean<axes = [2, 3]>(t)", "ReduceMean(t)"])
def test_a_sum_over_a_tensor_of_unknown_rank_stays_in_fp32(call: str) -> None:
    plan = _plan(f"g (float[2, 32] x, int64[n] s) => (float[] y) {{ t = Reshape(x, s) [n] y = {call} }}")
    _expect(_node(plan), "only known at run time")


@pytest.mark.parametrize(
    ("largest", "why"),
    [
        pytest.param(100.0, None, id="far from the bound"),
        pytest.param(4094.0, None, id="at the bound"),  # 4 values x 4094 x 4 = 65504
        pytest.param(4095.0, r"sum of 4 values that may reach 1\.64e\+04", id="above the bound"),
        pytest.param(math.inf, "may reach inf", id="not finite"),
    ],
)
@pytest.mark.parametrize("operator", ["ReduceMean<axes = [1]>(x)", "AveragePool<kernel_shape = [2, 2]>(x)"])
def test_a_short_sum_is_judged_by_what_was_measured(operator: str, largest: float, why: str | None) -> None:
    plan = _plan(f"g (float[1, 4, 8, 8] x) => (float[] y) {{ [n] y = {operator} }}", ranges={"x": largest, "y": 1.0})
    _expect(_node(plan), why)


def test_a_short_sum_that_was_not_measured_stays_in_fp32() -> None:
    model = _parsed("g (float[1, 4, 8, 8] x) => (float[1, 1, 8, 8] y) { [n] y = ReduceMean<axes = [1]>(x) }")
    _expect(_node(plan_from_graph(model, {})), "may reach inf")


@pytest.mark.parametrize(
    ("call", "opset"),
    [
        ("BatchNormalization(x, c, c, c, c)", 17),
        ("InstanceNormalization(x, c, c)", 17),
        ("LayerNormalization<axis = -1>(x, e)", 17),
        ("GroupNormalization<num_groups = 2>(x, c, c)", 21),
        ("LpNormalization<axis = 1>(x)", 17),
        ("MeanVarianceNormalization<axes = [2, 3]>(x)", 17),
        ("LRN<size = 3>(x)", 17),
        ("ReduceL2<axes = [1]>(x)", 17),
        ("ReduceSumSquare<axes = [1]>(x)", 17),
        ("LpPool<kernel_shape = [2, 2]>(x)", 17),
        ("GlobalLpPool(x)", 17),
    ],
)
def test_norms_stay_in_fp32(call: str, opset: int) -> None:
    plan = _plan(
        "g (float[1, 4, 8, 8] x) => (float[] y) <float[4] c = {1, 1, 1, 1}, float[8] e = {1, 1, 1, 1, 1, 1, 1, 1}> "
        f"{{ [n] y = {call} }}",
        opset,
    )
    _expect(_node(plan), "^norm")


@pytest.mark.parametrize(
    ("call", "why"),
    [
        pytest.param("Softmax<axis = 1>(x)", "exponentials", id="Softmax"),
        pytest.param("LogSoftmax<axis = 1>(x)", "exponentials", id="LogSoftmax"),
        pytest.param("Exp(x)", "exponentials", id="Exp"),
        pytest.param("ReduceLogSumExp<axes = [1]>(x)", "exponentials", id="ReduceLogSumExp"),
        pytest.param("Sigmoid(x)", None, id="Sigmoid"),
        pytest.param("Tanh(x)", None, id="Tanh"),
        pytest.param("Relu(x)", None, id="Relu"),
        pytest.param("Sqrt(x)", None, id="Sqrt"),
    ],
)
def test_exponentials_stay_in_fp32(call: str, why: str | None) -> None:
    _expect(_node(_plan(f"g (float[1, 4, 8, 8] x) => (float[] y) {{ [n] y = {call} }}")), why)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param("[n] t = MatMul(q, k) y = Softmax(t)", "logits without a scale", id="bare"),
        pytest.param(
            "[n] t = MatMul(q, k) u = Mul(t, eighth) y = Softmax(u)", "logits without a scale", id="scaled too late"
        ),
        pytest.param("[n] t = MatMul(q, k) u = Add(t, m) y = Softmax(u)", "logits without a scale", id="behind a mask"),
        pytest.param(
            "a = Mul(q, eight) [n] t = MatMul(a, k) y = Softmax(t)", "logits without a scale", id="scaled upwards"
        ),
        pytest.param("a = Mul(q, eighth) [n] t = MatMul(a, k) y = Softmax(t)", None, id="left operand scaled"),
        pytest.param("a = Mul(k, eighth) [n] t = MatMul(q, a) y = Softmax(t)", None, id="right operand scaled"),
        pytest.param("a = Div(k, eight) [n] t = MatMul(q, a) y = Softmax(t)", None, id="divided"),
        pytest.param(
            "a = Mul(k, eighth) b = Transpose(a) [n] t = MatMul(q, b) y = Softmax(t)",
            None,
            id="scaled, then transposed",
        ),
        pytest.param("[n] t = MatMul(q, w) y = Softmax(t)", None, id="weights on the right"),
        pytest.param("[n] t = Gemm(q, w) y = Softmax(t)", None, id="Gemm with weights"),
        pytest.param("[n] t = MatMul(q, k) y = Sigmoid(t)", None, id="a product before a gate"),
        pytest.param(
            """a = MatMul(q, w) b = MatMul(k, w) [n] t = Einsum<equation = "ij,kj->ik">(a, b) y = Softmax(t)""",
            "logits without a scale",
            id="Einsum",
        ),
    ],
)
def test_softmax_logits_without_a_scale_stay_in_fp32(body: str, why: str | None) -> None:
    weights = WEIGHT.replace(">", ", float eighth = {0.125}, float eight = {8}, float m = {0.5}>")
    _expect(_node(_plan(f"g (float[4, 4] q, float[4, 4] k) => (float[4, 4] y) {weights} {{ {body} }}")), why)


@pytest.mark.parametrize(
    ("constant", "why"),
    [
        pytest.param("float e = {1e-6}", r"constant 1\.0e-06 is below", id="1e-6"),
        pytest.param("float e = {-1e-6}", r"constant -1\.0e-06 is below", id="-1e-6"),
        pytest.param("float[1, 1] e = {6e-5}", r"constant 6\.0e-05 is below", id="just below 2^-14"),
        pytest.param("float e = {6.2e-5}", None, id="just above 2^-14"),
        pytest.param("float e = {0}", None, id="zero"),
        pytest.param("float[2] e = {1e-6, 1e-6}", None, id="a vector"),
    ],
)
def test_a_small_constant_keeps_its_node_in_fp32(constant: str, why: str | None) -> None:
    _expect(_node(_plan(f"g (float[1, 2] x) => (float[1, 2] y) <{constant}> {{ [n] y = Add(x, e) }}")), why)


GROWN = "sum of n, which grows with the resolution"


@pytest.mark.parametrize(
    ("between", "why"),
    [
        pytest.param("e = Relu(s)", GROWN, id="Relu"),
        pytest.param("e = Mul(s, small)", GROWN, id="a constant factor"),
        pytest.param("e = Div(s, small)", GROWN, id="a constant divisor"),
        pytest.param("a = Relu(s) b = Neg(a) c = Sqrt(b) e = Identity(c)", GROWN, id="several nodes"),
        pytest.param("a = Reshape(s, flat) e = Reshape(a, square)", GROWN, id="moves"),
        pytest.param("e = Concat<axis = 0>(s)", GROWN, id="Concat"),
        pytest.param("e = Max(s, small)", GROWN, id="a bound from below"),
        pytest.param("e = Clip(s, small)", GROWN, id="Clip without an upper bound"),
        pytest.param("e = LogSoftmax(s)", GROWN, id="LogSoftmax"),
        pytest.param("e = Sigmoid(s)", None, id="Sigmoid"),
        pytest.param("e = HardSigmoid(s)", None, id="HardSigmoid"),
        pytest.param("e = Tanh(s)", None, id="Tanh"),
        pytest.param("e = Softmax(s)", None, id="Softmax"),
        pytest.param("e = Clip(s, small, one)", None, id="Clip"),
        pytest.param("a = Relu(s) e = Div(a, s)", None, id="a division by the sum"),
        pytest.param("a = Relu(s) b = Sigmoid(a) e = Relu(b)", None, id="behind a gate"),
    ],
)
def test_a_sum_over_the_map_is_followed_to_where_it_is_bounded(between: str, why: str | None) -> None:
    weights = WEIGHT.replace(
        ">",
        ", int64[2] hw = {2, 3}, float small = {0.5}, float one = {1}, int64[1] flat = {4}, int64[2] square = {1, 4}>",
    )
    plan = _plan(
        f"g (float[1, 4, 8, 8] x) => (float[1, 4] y) {weights} "
        f"{{ [n] s = ReduceSum<keepdims = 0>(x, hw) {between} [after] y = MatMul(e, w) }}"
    )
    _expect(_node(plan), "H x W")
    _expect(_node(plan, "after"), why)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        pytest.param("ReduceSum<keepdims = 0>(x, hw)", GROWN, id="a sum over H x W"),
        pytest.param("ReduceL1<keepdims = 0, axes = [2, 3]>(x)", GROWN, id="a sum of magnitudes"),
        pytest.param("ReduceSumSquare<keepdims = 0, axes = [2, 3]>(x)", "takes the square of n", id="a sum of squares"),
        pytest.param("ReduceMean<keepdims = 0, axes = [2, 3]>(x)", None, id="a mean"),
        pytest.param("ReduceMax<keepdims = 0, axes = [2, 3]>(x)", None, id="a maximum"),
    ],
)
def test_only_what_grows_is_followed(call: str, why: str | None) -> None:
    weights = WEIGHT.replace(">", ", int64[2] hw = {2, 3}>")
    plan = _plan(f"g (float[1, 4, 8, 8] x) => (float[1, 4] y) {weights} {{ [n] s = {call} [after] y = MatMul(s, w) }}")
    _expect(_node(plan, "after"), why)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param("[n] s = Mul(x, x)", "takes the square of n", id="x times x"),
        pytest.param("[n] s = Pow(x, two)", "takes the square of n", id="power 2"),
        pytest.param("[n] a = Mul(x, x) s = Tanh(a)", None, id="a bounded square"),
        pytest.param("[n] s = Mul(x, z)", None, id="x times z"),
    ],
)
def test_a_square_is_followed_too(body: str, why: str | None) -> None:
    weights = WEIGHT.replace(">", ", float two = {2}>")
    plan = _plan(f"g (float[1, 4] x, float[1, 4] z) => (float[1, 4] y) {weights} {{ {body} [after] y = MatMul(s, w) }}")
    _expect(_node(plan, "after"), why)


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        pytest.param({"x": 16376.0}, None, id="at the bound"),  # times 4 is 65504
        pytest.param({"x": 16377.0}, r"measured range: 1\.64e\+04", id="a large input"),
        pytest.param({"y": 60000.0}, r"measured range: 6e\+04", id="a large output"),
        pytest.param({"w": 1e5}, r"measured range: 1e\+05", id="a large weight"),
        pytest.param({"y": math.inf}, "measured range: inf", id="not finite"),
        pytest.param({}, None, id="small"),
    ],
)
def test_what_was_measured_near_65504_stays_in_fp32(ranges: Mapping[str, float], why: str | None) -> None:
    graph = f"g (float[1, 4] x) => (float[1, 4] y) {WEIGHT} {{ [n] y = MatMul(x, w) }}"
    _expect(_node(_plan(graph, ranges=ranges)), why)


@pytest.mark.parametrize(("weight", "why"), [("1e5", r"measured range: 1e\+05"), ("16000", None)])
def test_a_large_weight_counts_without_a_measurement(weight: str, why: str | None) -> None:
    model = _parsed(
        "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) "
        f"<float[1, 1, 1, 1] w = {{{weight}}}> {{ [n] y = Conv(x, w) }}"
    )
    _expect(_node(plan_from_graph(model, {"x": 1e-3, "y": 1.0})), why)


MEAN = "s = ReduceMean<axes = [2, 3], keepdims = 0>(x)"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param(f"{MEAN} [n] a = Add(s, k) y = Softmax(a)", "stands between", id="cheap"),
        pytest.param(f"{MEAN} [n] a = Add(s, k) b = Relu(a) y = Softmax(b)", "stands between", id="first of a chain"),
        pytest.param(f"{MEAN} b = Add(s, k) [n] a = Relu(b) y = Softmax(a)", "stands between", id="last of a chain"),
        pytest.param("[n] a = Relu(x) y = ReduceMean<axes = [2, 3]>(a)", "stands between", id="behind the input"),
        pytest.param(f"{MEAN} [n] a = MatMul(s, w) y = Softmax(a)", None, id="heavy"),
        pytest.param(f"{MEAN} [n] a = Add(s, k) y = MatMul(a, w)", None, id="read by FP16"),
        pytest.param("s = Conv(x, c) [n] a = Add(s, k) y = Softmax<axis = 1>(a)", None, id="made by FP16"),
        pytest.param(f"{MEAN} [n] a = Add(s, k) b = Softmax(a) y = MatMul(a, w)", None, id="read by both"),
        pytest.param(f"{MEAN} [n] y = Add(s, k)", None, id="an output"),
    ],
)
def test_only_cheap_nodes_between_fp32_nodes_are_widened(body: str, why: str | None) -> None:
    weights = WEIGHT.replace(">", ", float k = {2}, float[1, 4, 1, 1] c = {1, 2, 3, 4}>")
    _expect(_node(_plan(f"g (float[1, 4, 8, 8] x) => (float[] y) {weights} {{ {body} }}")), why)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param(f"{MEAN} [n] a = Reshape(s, flat) y = MatMul(a, w)", "moves what", id="a reshape"),
        pytest.param(f"{MEAN} b = Reshape(s, flat) [n] a = Identity(b) y = MatMul(a, w)", "moves what", id="two moves"),
        pytest.param(f"{MEAN} [n] a = Concat<axis = 0>(s, s) y = MatMul(a, w)", "moves what", id="Concat"),
        pytest.param(f"{MEAN} [n] a = Relu(s) y = MatMul(a, w)", None, id="arithmetic"),
        pytest.param(
            f"{MEAN} b = ReduceMax<axes = [2, 3], keepdims = 0>(x) [n] a = Concat<axis = 0>(s, b) y = MatMul(a, w)",
            None,
            id="Concat with FP16",
        ),
        pytest.param("[n] a = Transpose(x) y = Conv(a, c)", None, id="a move of the input"),
    ],
)
def test_moves_of_what_fp32_nodes_made_are_widened(body: str, why: str | None) -> None:
    weights = WEIGHT.replace(">", ", int64[2] flat = {1, 4}, float[1, 8, 1, 1] c = {1, 1, 1, 1, 1, 1, 1, 1}>")
    _expect(_node(_plan(f"g (float[1, 4, 8, 8] x) => (float[] y) {weights} {{ {body} }}")), why)


@pytest.mark.parametrize(
    "call", ["Cast<to = 1>(i)", "Range(one, three, one)", "ConstantOfShape(i)", "Bernoulli<dtype = 1>(x)"]
)
def test_an_operator_without_fp16_form_says_so(call: str) -> None:
    graph = "g (float[2] x, int64[2] i) => (float[] y) <float one = {1}, float three = {3}>"
    _expect(_node(_plan(f"{graph} {{ [n] y = {call} }}")), "no FP16 form")


def test_a_node_that_makes_no_float_has_no_precision() -> None:
    plan = _plan("g (float[2] x) => (int64[1] y) { [a] t = Relu(x) [b] s = Shape(t) [c] y = Neg(s) }")
    assert [node.node for node in plan.nodes] == ["a"]


def test_the_nodes_in_fp16_are_those_of_that_precision() -> None:
    plan = _plan("g (float[2] x) => (float[2] y, float[2] z) { [a] y = Mul(x, x) [b] z = Relu(x) }")
    assert plan.half_nodes() == {"b"}
    assert (plan.count("fp16"), plan.count("fp32")) == (1, 1)


def test_headroom_is_65504_over_the_largest_magnitude_of_the_node() -> None:
    graph = "g (float[2] x) => (float[2] y) <float[2] w = {-300, 1}> { [n] y = Mul(x, w) }"
    node = _node(_plan(graph, ranges={"x": 2.0, "y": 600.0}))
    assert (node.largest, node.headroom) == (600.0, FP16_LARGEST / 600)
    weight = _node(_plan(graph, ranges={"x": 2.0, "y": 100.0}))
    assert (weight.largest, weight.headroom) == (300.0, FP16_LARGEST / 300)


def test_a_node_that_only_ever_saw_zero_has_no_headroom_to_state() -> None:
    node = _node(_plan("g (float[2] x) => (float[2] y) { [n] y = Relu(x) }", ranges={"x": 0.0, "y": 0.0}))
    assert (node.precision, node.headroom) == ("fp16", None)


def test_weights_below_the_normal_numbers_of_fp16_are_counted() -> None:
    graph = "g (float[3] x) => (float[3] y) <float[3] w = {1e-6, 0, 1}> { [n] y = Mul(x, w) }"
    assert _plan(graph).subnormal_weights == 1


@pytest.mark.parametrize("largest", [1.0, math.inf], ids=["finite", "overflown"])
def test_the_dictionary_is_strict_json_with_one_entry_a_node(largest: float) -> None:
    plan = _plan("g (float[2] x) => (float[2] y) { [a] t = Mul(x, x) [b] y = Relu(x) }", ranges={"x": largest})
    read = json.loads(json.dumps(plan.as_dict(), allow_nan=False))
    assert [node["node"] for node in read["nodes"]] == ["a", "b"]
    assert read["fp16_nodes"] + read["fp32_nodes"] == 2


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
@pytest.mark.parametrize("name", deploy_attn.available())
def test_the_plan_of_a_catalogue_module_is_whole_and_does_not_depend_on_the_opset(name: str, engine: str) -> None:
    torch.manual_seed(0)
    shape = (1, 16, 8, 8)
    form = small(name, channels=16).export_form(shape, engine).float().eval()
    plans = []
    for opset, ir_version in ((13, 7), (18, 8)):
        with torch.inference_mode():
            model = onnx_from_module(form, torch.zeros(shape), GraphRequest(opset, ir_version))
        plan = plan_from_graph(model, _measured(model))
        floats = [node.name for node in model.graph.node if GraphView(model).makes_float(node)]
        assert [node.node for node in plan.nodes] == floats
        assert all(node.reason and node.precision in ("fp16", "fp32") for node in plan.nodes)
        assert 0 < len(plan.half_nodes()) <= len(floats)
        plans.append({node.node: (node.precision, node.reason) for node in plan.nodes})
    assert plans[0] == plans[1]
