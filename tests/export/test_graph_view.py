"""Holds what the precision plan may ask of a graph: types, constants, neighbours, extents, FP16 forms."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from deploy_attn.export.graph_view import GraphView


def _parsed(graph: str, opset: int = 17) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {graph}')


def _viewed(graph: str, opset: int = 17) -> tuple[GraphView, dict[str, onnx.NodeProto]]:
    """The view, and the nodes by the name of their first output."""
    model = _parsed(graph, opset)
    return GraphView(model), {node.output[0]: node for node in model.graph.node}


MIXED = """g (float[2, 3] x, int64[3] places, float[4] extra) => (float[2, 3] y)
<float[3] w = {1e-6, -2.0, 0.0}, float tiny = {-1e-7}, int64[1] whole = {0}, float16[1] narrow = {0}> {
  a = Mul(x, w)
  b = Gather<axis = 1>(a, places)
  k = Constant<value = float[1] {5.0}>()
  y = Add(b, k)
}"""


@pytest.mark.parametrize(
    ("name", "is_float", "is_activation"),
    [
        ("x", True, True),
        ("a", True, True),
        ("y", True, True),
        ("w", True, False),
        ("k", True, False),
        ("places", False, False),
        ("whole", False, False),
        ("narrow", False, False),
        ("nowhere", False, False),
        ("", False, False),
    ],
)
def test_types_are_known_by_name(name: str, is_float: bool, is_activation: bool) -> None:
    view, _ = _viewed(MIXED)
    assert view.is_float(name) is is_float
    assert view.is_activation(name) is is_activation


@pytest.mark.parametrize(
    ("name", "value", "magnitude"),
    [("w", [1e-6, -2.0, 0.0], 2.0), ("k", [5.0], 5.0), ("whole", None, 0.0), ("x", None, 0.0), ("nowhere", None, 0.0)],
)
def test_constants_are_initializers_and_constant_nodes_of_floats(
    name: str, value: list[float] | None, magnitude: float
) -> None:
    view, _ = _viewed(MIXED)
    found = view.constant(name)
    assert (found is None) == (value is None)
    if found is not None:
        np.testing.assert_array_equal(found, np.array(value, np.float32))
    assert view.constant_magnitude(name) == magnitude


@pytest.mark.parametrize(("magnitude", "count"), [(1e-8, 0), (5e-7, 1), (2.0**-14, 2), (10.0, 4)])
def test_weights_below_a_magnitude_are_counted_without_zeros(magnitude: float, count: int) -> None:
    assert _viewed(MIXED)[0].weights_below(magnitude) == count


@pytest.mark.parametrize(
    ("call", "result", "makes"),
    [("Relu(x)", "float", True), ("Cast<to = 10>(x)", "float16", False), ("Shape(x)", "int64", False)],
)
def test_a_node_makes_floats_where_an_output_is_fp32(call: str, result: str, makes: bool) -> None:
    view, nodes = _viewed(f"g (float[2] x) => ({result}[] y) {{ y = {call} }}")
    assert view.makes_float(nodes["y"]) is makes


def test_makers_are_the_nodes_behind_float_inputs_and_users_those_that_read() -> None:
    view, nodes = _viewed(MIXED)
    assert view.makers(nodes["a"]) == []
    assert view.makers(nodes["y"]) == [nodes["b"]]
    assert view.users(nodes["a"]) == [nodes["b"]]
    assert view.users(nodes["y"]) == []


def test_a_node_that_is_read_twice_has_every_user() -> None:
    view, nodes = _viewed("g (float[2] x) => (float[2] z) { a = Relu(x) b = Neg(a) c = Exp(a) z = Add(b, c) }")
    assert view.users(nodes["a"]) == [nodes["b"], nodes["c"]]
    assert view.makers(nodes["z"]) == [nodes["b"], nodes["c"]]


@pytest.mark.parametrize(
    ("call", "weights", "opset", "count", "spatial"),
    [
        pytest.param("ReduceMean<axes = [2, 3]>(x)", "", 13, 56, True, id="H x W as an attribute"),
        pytest.param("ReduceMean<axes = [-1, -2]>(x)", "", 13, 56, True, id="negative axes"),
        pytest.param("ReduceMean(x, a)", "<int64[2] a = {2, 3}>", 18, 56, True, id="H x W as an input"),
        pytest.param("ReduceMean(x, a)", "<int64[2] a = {-2, -1}>", 18, 56, True, id="negative axes as an input"),
        pytest.param("ReduceSum(x, a)", "<int64[2] a = {2, 3}>", 13, 56, True, id="ReduceSum at 13"),
        pytest.param("ReduceSum(x, a)", "<int64[1] a = {3}>", 17, 8, True, id="W"),
        pytest.param("ReduceSum(x, a)", "<int64[1] a = {1}>", 17, 32, False, id="channels"),
        pytest.param("ReduceSum(x, a)", "<int64[1] a = {-3}>", 17, 32, False, id="channels from the end"),
        pytest.param("ReduceSum(x, a)", "<int64[1] a = {0}>", 17, 2, False, id="the batch"),
        pytest.param("ReduceMean(x)", "", 17, 2 * 32 * 56, True, id="everything"),
        pytest.param("GlobalAveragePool(x)", "", 17, 56, True, id="GlobalAveragePool"),
        pytest.param("AveragePool<kernel_shape = [5, 3]>(x)", "", 17, 15, True, id="AveragePool"),
    ],
)
def test_a_reduction_knows_how_many_values_it_sums(
    call: str, weights: str, opset: int, count: int, spatial: bool
) -> None:
    view, nodes = _viewed(f"g (float[2, 32, 7, 8] x) => (float[] y) {weights} {{ t = {call} y = ReduceMax(t) }}", opset)
    assert view.reduced(nodes["t"]) == (count, spatial)


@pytest.mark.parametrize(
    ("shape", "count", "spatial"),
    [("batch, 32, 7, 8", 56, True), ("2, 32, h, 8", None, True), ("2, 32, 7, w", None, True)],
)
def test_an_extent_that_is_open_makes_the_count_unknown(shape: str, count: int | None, spatial: bool) -> None:
    view, nodes = _viewed(f"g (float[{shape}] x) => (float[n, 32, 1, 1] y) {{ y = GlobalAveragePool(x) }}")
    assert view.reduced(nodes["y"]) == (count, spatial)


@pytest.mark.parametrize("call", ["GlobalAveragePool(t)", "ReduceMean<axes = [2, 3]>(t)", "ReduceMean(t)"])
def test_a_tensor_of_unknown_rank_makes_the_count_unknown(call: str) -> None:
    view, nodes = _viewed(f"g (float[2, 32] x, int64[n] s) => (float[] y) {{ t = Reshape(x, s) y = {call} }}")
    assert view.reduced(nodes["y"])[0] is None


@pytest.mark.parametrize(
    ("call", "result", "half"),
    [
        pytest.param("Relu(x)", "float", True, id="Relu"),
        pytest.param("Conv(x, w)", "float", True, id="Conv"),
        pytest.param("Softmax(x)", "float", True, id="Softmax"),
        pytest.param("Resize(x, , scales)", "float", True, id="Resize"),
        pytest.param("ArgMax<axis = 1>(x)", "int64", False, id="integers come out"),
        pytest.param("Shape(x)", "int64", False, id="a shape comes out"),
        pytest.param("Cast<to = 1>(x)", "float", False, id="Cast"),
        pytest.param("Constant<value = float {1.0}>()", "float", False, id="Constant"),
        pytest.param("Gather(x, places)", "float", True, id="Gather"),
        pytest.param("OneHot<axis = 0>(places, places, values)", "float", True, id="OneHot"),
        pytest.param("Bernoulli<dtype = 1>(x)", "float", False, id="another type than the input's"),
        pytest.param("ConstantOfShape(places)", "float", False, id="nothing to read in FP16"),
        pytest.param("Range(one, k, one)", "float", False, id="no FP16 in its constraints"),
    ],
)
def test_an_operator_may_be_fp16_where_onnx_says_so(call: str, result: str, half: bool) -> None:
    view, nodes = _viewed(
        f"g (float[1, 2, 4, 4] x, int64[1] places, float[2] values) => ({result}[] y) "
        f"<float[1, 2, 1, 1] w = {{1.0, 2.0}}, float[4] scales = {{1, 1, 2, 2}}, float one = {{1}}, float k = {{3}}>"
        f"{{ y = {call} }}"
    )
    assert view.can_be_half(nodes["y"]) is half


def test_an_operator_with_a_subgraph_stays_as_it_is() -> None:
    view, nodes = _viewed("""g (float[2] x, int64 count, bool go) => (float[2] y) {
      y = Loop(count, go, x) <body = step (int64 i, bool on, float[2] a) => (bool still, float[2] b) {
        still = Identity(on)
        b = Relu(a)
      }>
    }""")
    assert not view.can_be_half(nodes["y"])


@pytest.mark.parametrize(
    ("call", "weights", "indices"),
    [
        pytest.param(
            "Conv(x, w, b)", "<float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2] b = {1, 2}>", [0, 1, 2], id="Conv"
        ),
        pytest.param("Concat<axis = 1>(x, x, x)", "", [0, 1, 2], id="variadic"),
        pytest.param("Where(c, x, x)", "", [1, 2], id="Where"),
        pytest.param("Resize(x, , s)", "<float[4] s = {1, 1, 2, 2}>", [0], id="Resize"),
        pytest.param("Clip(x, , s)", "<float s = {1}>", [0, 2], id="an optional input left out"),
        pytest.param("Reshape(x, s)", "<int64[1] s = {-1}>", [0], id="Reshape"),
        pytest.param(
            "BatchNormalization(x, s, s, s, s)", "<float[2] s = {1, 1}>", [0], id="statistics of a type of their own"
        ),
    ],
)
def test_the_inputs_that_share_the_outputs_type_are_found(call: str, weights: str, indices: list[int]) -> None:
    view, nodes = _viewed(
        f"g (float[1, 2, 4, 4] x, bool[1] c) => (float[] y) {weights} {{ t = {call} y = ReduceMax<keepdims = 0>(t) }}"
    )
    assert view.half_inputs(nodes["t"]) == indices


@pytest.mark.parametrize(
    ("body", "reaches"),
    [
        pytest.param("y = Softmax(t)", True, id="directly"),
        pytest.param("a = Add(t, m) y = Softmax(a)", True, id="after a mask"),
        pytest.param("a = Mul(t, m) b = Reshape(a, s) d = Transpose(b) y = Softmax(d)", True, id="after moves"),
        pytest.param("a = Div(t, m) b = Sub(a, m) d = Where(c, b, m) y = Softmax(d)", True, id="after Where"),
        pytest.param("z = Exp(t) y = Softmax(t)", True, id="beside another reader"),
        pytest.param("y = Sigmoid(t)", False, id="a gate"),
        pytest.param("a = MatMul(t, m) y = Softmax(a)", False, id="behind another product"),
        pytest.param("a = Relu(t) y = Softmax(a)", False, id="behind a bend"),
    ],
)
def test_logits_are_followed_to_their_softmax(body: str, reaches: bool) -> None:
    view, nodes = _viewed(
        "g (float[2, 2] q, float[2, 2] k, bool c) => (float[2, 2] y) "
        f"<float[2, 2] m = {{1, 2, 3, 4}}, int64[2] s = {{2, 2}}> {{ t = MatMul(q, k) {body} }}"
    )
    assert view.reaches_softmax(nodes["t"]) is reaches


@pytest.mark.parametrize(
    ("body", "scaled"),
    [
        pytest.param("t = Mul(x, eighth)", True, id="Mul by 0.125"),
        pytest.param("t = Mul(eighth, x)", True, id="0.125 first"),
        pytest.param("t = Div(x, eight)", True, id="Div by 8"),
        pytest.param("a = Mul(x, eighth) t = Transpose(a)", True, id="before a transpose"),
        pytest.param("a = Mul(x, eighth) b = Reshape(a, s) t = Identity(b)", True, id="before moves"),
        pytest.param("t = Mul(x, eight)", False, id="Mul by 8"),
        pytest.param("t = Mul(x, one)", False, id="Mul by 1"),
        pytest.param("t = Div(x, eighth)", False, id="Div by 0.125"),
        pytest.param("t = Mul(x, x)", False, id="Mul by an activation"),
        pytest.param("a = Mul(x, eighth) t = Relu(a)", False, id="before a bend"),
        pytest.param("t = Transpose(x)", False, id="never"),
    ],
)
def test_a_scale_is_a_constant_that_makes_smaller(body: str, scaled: bool) -> None:
    view, _ = _viewed(
        "g (float[2, 2] x) => (float[2, 2] y) "
        "<float eighth = {0.125}, float eight = {8}, float one = {1}, int64[2] s = {2, 2}>"
        f"{{ {body} y = Relu(t) }}"
    )
    assert view.is_scaled_down("t") is scaled
    assert not view.is_scaled_down("x")


@pytest.mark.parametrize(
    ("call", "value"),
    [
        ("Constant<value = float[2] {1.0, 2.0}>()", [1.0, 2.0]),
        ("Constant<value_float = 0.5>()", 0.5),
        ("Constant<value_floats = [0.5, 1.5]>()", [0.5, 1.5]),
        ("Constant<value_int = 3>()", 3),
        ("Constant<value_ints = [3, -1]>()", [3, -1]),
        ('Constant<value_string = "text">()', None),
    ],
)
def test_a_constant_is_known_in_whichever_attribute_it_stands(call: str, value: object) -> None:
    view, _ = _viewed(f"g (float[2] x) => (float[2] y) {{ k = {call} y = Relu(x) }}")
    found = view.value("k")
    assert view.is_constant("k") is (value is not None)
    assert (None if found is None else found.tolist()) == value


def test_a_value_of_any_type_is_given_and_one_in_another_file_is_not() -> None:
    model = _parsed("g (float[2] x) => (float[2] y) <int64[2] i = {4, 5}, float[2] w = {1, 2}> { y = Add(x, w) }")
    model.graph.initializer[1].data_location = onnx.TensorProto.EXTERNAL
    view = GraphView(model, onnx.GraphProto())
    value = view.value("i")
    assert value is not None
    assert value.tolist() == [4, 5]
    assert (view.value("w"), view.value("x"), view.constant("w")) == (None, None, None)
    assert (view.shape("w"), view.elem_type("w")) == ([2], onnx.TensorProto.FLOAT)
    assert (view.shape("x"), view.elem_type("x")) == (None, onnx.TensorProto.UNDEFINED)


def test_extents_are_open_where_they_are_named_negative_or_left_out() -> None:
    model = _parsed("g (float[N, 3, 4] x, float s, float[] r) => (float[N, 3, 4] y) { y = Relu(x) }")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -1
    view = GraphView(model, model.graph)
    assert view.shape("x") == [None, None, 4]
    assert view.shape("s") == []
    assert view.shape("r") is None
    assert view.elem_types["x"] == onnx.TensorProto.FLOAT


def test_inputs_that_are_left_out_join_no_nodes() -> None:
    view, nodes = _viewed("g (float[2] x) => (float[2] y) { a = Clip(x, , ) y = Clip(a, , ) }")
    assert view.users(nodes["a"]) == [nodes["y"]]
    assert view.maker("") is None
    assert view.maker("y") == nodes["y"]


def test_an_operator_of_another_domain_has_no_fp16_form() -> None:
    view, nodes = _viewed("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    assert view.can_be_half(nodes["y"])
    nodes["y"].domain = "com.microsoft"
    assert not view.can_be_half(nodes["y"])


def test_a_long_chain_of_moves_is_followed_to_its_scale() -> None:
    moves = "".join(f" t{i + 1} = Transpose<perm = [1, 0]>(t{i})" for i in range(3000))
    view, _ = _viewed(f"g (float[2, 2] x) => (float[2, 2] t3000) <float k = {{0.5}}> {{ t0 = Mul(x, k){moves} }}")
    assert view.is_scaled_down("t3000")


def test_a_subgraph_is_included_and_a_name_that_clashes_stands_for_nothing() -> None:
    model = _parsed("g (float[2] x) => (float[2] y) <float k = {1.0}> { a = Relu(x) y = Add(a, k) }")
    inner = _parsed("g (float[2] x) => (float[2] z) <float k = {2.0}, float only = {3.0}> { z = Add(x, only) }").graph
    view = GraphView(model)
    view.include(inner, inner)
    value = view.value("only")
    assert value is not None
    assert float(value) == 3.0
    assert view.shape("z") == [2]
    assert view.maker("z") == inner.node[0]
    assert (view.value("k"), view.shape("k"), view.elem_type("k")) == (None, None, onnx.TensorProto.UNDEFINED)
    assert view.maker("a") == model.graph.node[0]


def test_a_model_without_onnxs_own_operators_has_opset_0() -> None:
    model = _parsed("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.opset_import[0].domain = "ai.onnx.ml"
    assert GraphView(model, model.graph).opset == 0
