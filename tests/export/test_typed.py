"""Holds that the typed graph is the FP32 graph with exactly the plan's precision, and as few Casts as that takes."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import deploy_attn
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.rounding import rounded_from_typed
from deploy_attn.export.graph_view import GraphView
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import NodePlan, PrecisionPlan, plan_from_graph
from deploy_attn.export.ranges import tensor_ranges
from deploy_attn.export.typed import typed_from_plan
from tests.deploy_attn.catalogue_cases import small

Array = np.ndarray[Any, np.dtype[np.float32]]

HALF, FULL = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


def _parsed(graph: str) -> onnx.ModelProto:
    """The graph of the text; a node without a name is called as what it makes."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {graph}')
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    return model


def _plan(model: onnx.ModelProto, half: Collection[str]) -> PrecisionPlan:
    """A plan that puts these nodes in FP16 and no other."""
    nodes = tuple(
        NodePlan(node.name, node.op_type, "fp16" if node.name in half else "fp32", "chosen", 1.0, None)
        for node in model.graph.node
    )
    return PrecisionPlan(nodes=nodes, ranges={}, subnormal_weights=0)


def _typed(model: onnx.ModelProto, half: Collection[str]) -> onnx.ModelProto:
    """The typed graph of such a plan, after everything that must hold of any typed graph."""
    typed = typed_from_plan(model, _plan(model, half))
    onnx.checker.check_model(typed, full_check=True)
    _check_nodes_and_ends(model, typed)
    _check_casts(model, typed)
    _check_types(model, typed, half)
    return typed


def _check_nodes_and_ends(model: onnx.ModelProto, typed: onnx.ModelProto) -> None:
    names = [node.name for node in model.graph.node]
    kept = [node for node in typed.graph.node if node.name in names]
    assert [(node.name, node.op_type) for node in kept] == [(node.name, node.op_type) for node in model.graph.node]
    assert max(Counter(node.name for node in typed.graph.node).values()) == 1
    assert list(typed.graph.input) == list(model.graph.input)
    assert list(typed.graph.output) == list(model.graph.output)
    assert list(typed.opset_import) == list(model.opset_import)
    assert typed.ir_version == model.ir_version


def _check_casts(model: onnx.ModelProto, typed: onnx.ModelProto) -> None:
    """One Cast a tensor and direction, none that nobody reads; no initializer that nobody reads."""
    casts = _added_casts(model, typed)
    assert max(Counter((cast.input[0], cast.attribute[0].i) for cast in casts).values(), default=1) == 1
    read = {name for node in typed.graph.node for name in node.input} | {value.name for value in typed.graph.output}
    assert {cast.output[0] for cast in casts} <= read
    assert {tensor.name for tensor in typed.graph.initializer} <= read
    assert max(Counter(tensor.name for tensor in typed.graph.initializer).values(), default=1) == 1


def _check_types(model: onnx.ModelProto, typed: onnx.ModelProto, half: Collection[str]) -> None:
    """Every FP16 node makes FP16 from FP16; no other node touches any."""
    view = GraphView(model)
    types = _types(typed)
    originals = {node.name: node for node in model.graph.node}
    for node in typed.graph.node:
        if node.name not in originals:
            continue
        original = originals[node.name]
        shares = view.half_inputs(original) if node.name in half else []
        for index, name in enumerate(node.input):
            if view.is_float(original.input[index]):
                assert types[name] == (HALF if index in shares else FULL), (node.name, name)
        for index, name in enumerate(node.output):
            if view.is_float(original.output[index]):
                assert types[name] == (HALF if node.name in half else FULL), (node.name, name)


def _added_casts(model: onnx.ModelProto, typed: onnx.ModelProto) -> list[onnx.NodeProto]:
    names = {node.name for node in model.graph.node}
    added = [node for node in typed.graph.node if node.name not in names]
    assert {node.op_type for node in added} <= {"Cast"}
    return added


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    with OnnxRuntimeRunner(model.SerializeToString(), optimise=False) as run:
        return dict(run.infer(feeds))


# z is an output that is read inside; b is read by three nodes; w by two.
MIXED = """g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z) <float[3] w = {0.1, -2, 3}, float[3] idle = {1, 2, 3}> {
  a = Mul(x, w)
  b = Relu(a)
  c = Add(b, w)
  z = Sigmoid(b)
  d = Add(c, b)
  y = Mul(d, z)
}"""
MIXED_NODES = ("a", "b", "c", "z", "d", "y")


@pytest.mark.parametrize(
    "half",
    [
        pytest.param(half, id="+".join(half) or "none")
        for count in range(len(MIXED_NODES) + 1)
        for half in itertools.combinations(MIXED_NODES, count)
    ],
)
def test_every_mixture_of_precisions_is_a_valid_graph_near_the_fp32_one(half: tuple[str, ...]) -> None:
    model = _parsed(MIXED)
    feeds = {"x": np.array([[1, 2, 3], [-4, -5, 6]], np.float32)}
    wanted, got = _run(model, feeds), _run(_typed(model, half), feeds)
    assert set(got) == {"y", "z"}
    for name, values in wanted.items():
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], values, rtol=4e-3, atol=1e-3)


def test_an_all_fp32_plan_leaves_the_graph_as_it_is() -> None:
    model = _parsed(MIXED)
    typed = _typed(model, ())
    assert list(typed.graph.node) == list(model.graph.node)
    assert [tensor.name for tensor in typed.graph.initializer] == ["w"]


def test_an_all_fp16_plan_casts_at_the_ends_only() -> None:
    model = _parsed(MIXED)
    typed = _typed(model, MIXED_NODES)
    casts = {(cast.input[0], cast.output[0]) for cast in _added_casts(model, typed)}
    assert casts == {("x", "x__fp16"), ("z__fp16", "z"), ("y__fp16", "y")}
    assert [(tensor.name, tensor.data_type) for tensor in typed.graph.initializer] == [("w__fp16", HALF)]


def test_a_weight_is_stored_in_each_type_that_reads_it() -> None:
    typed = _typed(_parsed(MIXED), ("a",))
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in typed.graph.initializer}
    assert {name: values.dtype for name, values in stored.items()} == {
        "w": np.dtype(np.float32),
        "w__fp16": np.dtype(np.float16),
    }
    np.testing.assert_array_equal(stored["w__fp16"], np.array([0.1, -2, 3], np.float16))
    np.testing.assert_array_equal(stored["w"], np.array([0.1, -2, 3], np.float32))


def test_a_tensor_that_both_precisions_read_is_cast_once() -> None:
    model = _parsed(MIXED)
    made_half = _added_casts(model, _typed(model, ("b",)))
    assert Counter(cast.input[0] for cast in made_half) == {"a": 1, "b": 1}
    made_full = _added_casts(model, _typed(model, ("c", "d")))
    assert Counter(cast.input[0] for cast in made_full) == {"b": 1, "d": 1}


def test_what_fp32_nodes_read_of_the_input_is_not_rounded() -> None:
    model = _parsed("g (float[1] x) => (float[1] y, float[1] z) { y = Neg(x) z = Relu(x) }")
    x = np.array([1.0001], np.float32)
    got = _run(rounded_from_typed(_typed(model, ("z",))), {"x": x})
    assert got["y"][0] == -x[0]
    assert got["z"][0] == 1.0


def test_one_tensor_read_twice_by_a_node_is_cast_once() -> None:
    model = _parsed("g (float[2] x) => (float[2] y) { y = Mul(x, x) }")
    typed = _typed(model, ("y",))
    assert list(typed.graph.node[1].input) == ["x__fp16", "x__fp16"]
    assert len(_added_casts(model, typed)) == 2


def test_a_node_with_several_outputs_makes_them_all_in_fp16() -> None:
    model = _parsed("""g (float[2, 4] x) => (float[2, 2] p, float[2, 2] y) {
      [split] p, q = Split<axis = 1>(x)
      y = Neg(q)
    }""")
    feeds = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
    got = _run(_typed(model, ("split",)), feeds)
    np.testing.assert_array_equal(got["p"], feeds["x"][:, :2])
    np.testing.assert_array_equal(got["y"], -feeds["x"][:, 2:])


@pytest.mark.parametrize(
    ("graph", "kept"),
    [
        pytest.param(
            "g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) <float[4] s = {1, 1, 2, 2}> "
            '{ y = Resize<mode = "nearest">(x, , s) }',
            {"s": FULL},
            id="the scales of Resize",
        ),
        pytest.param(
            "g (float[2, 2] x) => (float[4] y) <int64[1] s = {4}> { y = Reshape(x, s) }",
            {"s": onnx.TensorProto.INT64},
            id="the shape of Reshape",
        ),
        pytest.param(
            "g (float[4] x) => (float[2] y) <int64[2] s = {3, 1}> { y = Gather(x, s) }",
            {"s": onnx.TensorProto.INT64},
            id="the places of Gather",
        ),
        pytest.param(
            "g (float[4] x) => (float[4] y) <float low = {0.5}> { y = Clip(x, low) }",
            {"low__fp16": HALF},
            id="the bound of Clip",
        ),
    ],
)
def test_an_input_with_a_type_of_its_own_keeps_it(graph: str, kept: dict[str, int]) -> None:
    model = _parsed(graph)
    typed = _typed(model, ("y",))
    assert {tensor.name: tensor.data_type for tensor in typed.graph.initializer} == kept
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)}
    np.testing.assert_array_equal(_run(typed, feeds)["y"], _run(model, feeds)["y"])


def test_integers_pass_between_nodes_of_either_precision() -> None:
    model = _parsed("""g (float[2, 3] x) => (float[2, 3] y, int64[2] place) {
      a = Relu(x)
      place = ArgMax<axis = 1, keepdims = 0>(a)
      b = Gather(x, place)
      y = Add(a, b)
    }""")
    feeds = {"x": np.array([[1, 2, -3], [6, 5, 4]], np.float32)}
    wanted, got = _run(model, feeds), _run(_typed(model, ("a", "b")), feeds)
    np.testing.assert_array_equal(got["place"], wanted["place"])
    np.testing.assert_array_equal(got["y"], wanted["y"])


def test_an_initializer_that_is_an_output_is_kept() -> None:
    model = _parsed("g (float[2] x) => (float[2] y, float[2] table) <float[2] table = {1, 2}> { y = Relu(x) }")
    onnx.checker.check_model(model, full_check=True)
    typed = typed_from_plan(model, _plan(model, ("y",)))
    onnx.checker.check_model(typed, full_check=True)
    np.testing.assert_array_equal(_run(typed, {"x": np.ones(2, np.float32)})["table"], [1, 2])


@pytest.mark.parametrize(
    ("branch", "half"),
    [
        pytest.param("u = Mul(x, w)", (), id="a weight"),
        pytest.param("u = Mul(x, w)", ("y",), id="a weight, FP16 behind it"),
        pytest.param("u = Neg(a)", ("a",), id="a tensor made in FP16"),
        pytest.param("u = Neg(a)", (), id="a tensor made in FP32"),
    ],
)
def test_what_a_branch_takes_from_the_graph_around_it_is_there_in_fp32(branch: str, half: tuple[str, ...]) -> None:
    model = _parsed(f"""g (float[2] x, bool c) => (float[2] y) <float[2] w = {{2, 3}}> {{
      a = Relu(x)
      b = If(c) <then_branch = t () => (float[2] u) {{ {branch} }}, else_branch = e () => (float[2] v) {{ v = Neg(x) }}>
      y = Add(a, b)
    }}""")
    feeds: dict[str, Any] = {"x": np.array([1, -2], np.float32), "c": np.array(True)}
    typed = typed_from_plan(model, _plan(model, half))
    onnx.checker.check_model(typed, full_check=True)
    np.testing.assert_array_equal(_run(typed, feeds)["y"], _run(model, feeds)["y"])


def test_the_fp32_graph_is_not_written_to() -> None:
    model = _parsed(MIXED)
    before = model.SerializeToString()
    typed_from_plan(model, _plan(model, MIXED_NODES))
    assert model.SerializeToString() == before


@pytest.mark.parametrize("opset_and_ir", [(13, 7), (17, 8), (20, 9)], ids=["13", "17", "20"])
@pytest.mark.parametrize("name", deploy_attn.available())
def test_every_catalogue_module_has_a_valid_typed_graph(name: str, opset_and_ir: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 16, 8, 8)
    form = small(name, channels=16).export_form((1, 16, 8, 8), "gpu").float().eval()
    with torch.inference_mode():
        model = onnx_from_module(form, x, GraphRequest(*opset_and_ir))
        wanted = form(x).numpy()
    plan = plan_from_graph(model, tensor_ranges(model, [{"input": x.numpy()}]))
    half = {node.node for node in plan.nodes if node.precision == "fp16"}
    got = _run(_typed(model, half), {"input": x.numpy()})["output"]
    assert np.linalg.norm(got - wanted) <= 2e-3 * np.linalg.norm(wanted)


@dataclass(frozen=True)
class _Step:
    """One node of a random graph; operands count from the newest tensor backwards."""

    operator: str
    first: int
    second: int
    half: bool
    is_output: bool


BINARY = ("Add", "Mul", "Sub", "Max", "Min")
UNARY = ("Relu", "Neg", "Sigmoid", "Identity", "ReduceMax")
STEPS = st.lists(
    st.builds(
        _Step,
        st.sampled_from((*BINARY, *UNARY)),
        st.integers(0, 9),
        st.integers(0, 9),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=10,
)
VALUES = st.lists(st.floats(-4, 4, width=32), min_size=6, max_size=6)


def _sigmoid(x: Array) -> Array:
    """onnxruntime's own sigmoid, whose last bit is not numpy's."""
    node = onnx.helper.make_node("Sigmoid", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, FULL, x.shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid("", 17)]
    return _run(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), {"x": x})["y"]


def _kernels() -> dict[str, Callable[..., Any]]:
    return {
        "Add": np.add,
        "Mul": np.multiply,
        "Sub": np.subtract,
        "Max": np.maximum,
        "Min": np.minimum,
        "Relu": lambda x: np.maximum(x, np.float32(0)),
        "Neg": np.negative,
        "Sigmoid": _sigmoid,
        "Identity": np.copy,
        "ReduceMax": functools.partial(np.max, axis=1, keepdims=True),
    }


def _operands(step: _Step, tensors: list[str]) -> list[str]:
    places = (step.first, step.second) if step.operator in BINARY else (step.first,)
    return [tensors[-1 - place % len(tensors)] for place in places]


def _graph_of(steps: list[_Step], w: Array) -> onnx.ModelProto:
    tensors, nodes = ["w", "x"], []
    for index, step in enumerate(steps):
        attributes: dict[str, Any] = {"axes": [1]} if step.operator == "ReduceMax" else {}
        name = f"n{index}"
        nodes.append(onnx.helper.make_node(step.operator, _operands(step, tensors), [name], name, **attributes))
        tensors.append(name)
    outputs = [f"n{index}" for index, step in enumerate(steps) if step.is_output or index == len(steps) - 1]
    x = onnx.helper.make_tensor_value_info("x", FULL, (2, 3))
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [x],
        [onnx.helper.make_tensor_value_info(name, FULL, (2, None)) for name in outputs],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _rounded(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def _emulated(steps: list[_Step], x: Array, w: Array) -> dict[str, Array]:
    """What the graph computes where FP16 nodes round what they read and what they make."""
    kernels = _kernels()
    values = {"w": w, "x": x}
    for index, step in enumerate(steps):
        operands = [values[name] for name in _operands(step, list(values))]
        made = kernels[step.operator](*(map(_rounded, operands) if step.half else operands))
        values[f"n{index}"] = _rounded(made) if step.half else made
    return values


@settings(max_examples=150, deadline=None, derandomize=True)
@given(steps=STEPS, x_values=VALUES, w_values=VALUES)
def test_a_random_graph_with_random_precisions_rounds_where_its_plan_says(
    steps: list[_Step], x_values: list[float], w_values: list[float]
) -> None:
    x, w = (np.array(values, np.float32).reshape(2, 3) for values in (x_values, w_values))
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = _emulated(steps, x, w)
    assume(all(np.isfinite(values).all() for values in wanted.values()))
    model = _graph_of(steps, w)
    typed = _typed(model, {f"n{index}" for index, step in enumerate(steps) if step.half})
    got = _run(rounded_from_typed(typed), {"x": x})
    assert set(got) == {value.name for value in model.graph.output}
    for name, values in got.items():
        np.testing.assert_array_equal(values, wanted[name], err_msg=name)
