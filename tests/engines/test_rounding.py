"""The pessimistic bracket: every FP16 tensor is rounded to FP16, whatever the engine does with FP16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.rounding import half_tensors, rounded_from_typed

Array = np.ndarray[Any, Any]

SIZE = 8
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
EITHER_OPTIMISATION = pytest.mark.parametrize("optimise", [True, False], ids=["optimised", "as written"])


def typed(
    nodes: Sequence[NodeProto], weights: dict[str, Array] | None = None, taken: int = FLOAT, given: int = FLOAT
) -> ModelProto:
    """A graph from x to y, both vectors; `taken` and `given` are their types."""
    graph = helper.make_graph(
        list(nodes),
        "typed",
        [helper.make_tensor_value_info("x", taken, [SIZE])],
        [helper.make_tensor_value_info("y", given, [SIZE])],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], f"cast_{target}", to=to)


def node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, list(inputs), [output], f"{operator.lower()}_{output}", **attributes)


def run(model: ModelProto, x: Array, optimise: bool = True) -> Array:
    onnx.checker.check_model(model, full_check=True)
    with OnnxRuntimeRunner(model.SerializeToString(), optimise) as runner:
        output: Array = runner.infer({"x": x})["y"]
    return output


def vector(*values: float) -> Array:
    return np.resize(np.array(values, dtype=np.float32), SIZE)


def scaled(factor: float, back: float) -> ModelProto:
    """y = (half(x) * factor) * back, all in FP16."""
    return typed(
        [
            cast("x", "h", HALF),
            node("Mul", ["h", "factor"], "large"),
            node("Mul", ["large", "back"], "small"),
            cast("small", "y", FLOAT),
        ],
        {"factor": np.array(factor, dtype=np.float16), "back": np.array(back, dtype=np.float16)},
    )


def polynomial() -> ModelProto:
    """y = relu(h * h - 0.1 h), element by element."""
    return typed(
        [
            cast("x", "h", HALF),
            node("Mul", ["h", "h"], "square"),
            node("Mul", ["h", "slope"], "line"),
            node("Sub", ["square", "line"], "difference"),
            node("Relu", ["difference"], "positive"),
            cast("positive", "y", FLOAT),
        ],
        {"slope": np.array(0.1, dtype=np.float16)},
    )


@EITHER_OPTIMISATION
def test_an_overflow_between_nodes_is_inf_even_if_it_would_come_back_in_range(optimise: bool) -> None:
    found = run(rounded_from_typed(scaled(1.5, 0.5)), vector(60000.0, -60000.0, 40000.0), optimise)
    np.testing.assert_array_equal(found, vector(np.inf, -np.inf, 30000.0), strict=True)


@EITHER_OPTIMISATION
def test_what_is_below_half_a_step_is_lost(optimise: bool) -> None:
    model = rounded_from_typed(typed([cast("x", "h", HALF), cast("h", "y", FLOAT)]))
    found = run(model, vector(1 + 2.0**-12, 1 + 2.0**-10, 2.0**-26), optimise)
    np.testing.assert_array_equal(found, vector(1, 1 + 2.0**-10, 0), strict=True)


@EITHER_OPTIMISATION
def test_a_result_is_rounded_not_only_what_enters(optimise: bool) -> None:
    step = 1 + 2.0**-10
    found = run(rounded_from_typed(scaled(step, 1.0)), vector(step), optimise)
    np.testing.assert_array_equal(found, vector(1 + 2.0**-9), strict=True)  # the exact product has 2^-20 more


@pytest.fixture(scope="module")
def rounded_polynomial() -> bytes:
    content: bytes = rounded_from_typed(polynomial()).SerializeToString()
    return content


@given(x=hnp.arrays(np.float32, SIZE, elements=st.floats(width=32)), optimise=st.booleans())
def test_values_are_those_of_numpys_float16(rounded_polynomial: bytes, x: Array, optimise: bool) -> None:
    with np.errstate(all="ignore"):
        half = x.astype(np.float16)
        difference = half * half - half * np.float16(0.1)
        expected = np.where(difference < 0, np.float16(0), difference).astype(np.float32)
    with OnnxRuntimeRunner(rounded_polynomial, optimise) as runner:
        np.testing.assert_array_equal(runner.infer({"x": x})["y"], expected, strict=True)


@given(x=hnp.arrays(np.float32, SIZE, elements=st.floats(-1000, 1000, width=32)))
def test_rounding_a_second_time_changes_no_value(rounded_polynomial: bytes, x: Array) -> None:
    once = onnx.load_from_string(rounded_polynomial)
    np.testing.assert_array_equal(run(rounded_from_typed(once), x), run(once, x), strict=True)


def test_a_graph_without_fp16_is_left_as_it_is() -> None:
    model = typed(
        [node("Mul", ["x", "third"], "z"), node("Exp", ["z"], "y")], {"third": np.array(1 / 3, dtype=np.float32)}
    )
    rounded = rounded_from_typed(model)
    assert list(rounded.graph.node) == list(model.graph.node)
    assert list(rounded.graph.initializer) == list(model.graph.initializer)
    x = vector(1 + 2.0**-12, 100000.0, -3.25)
    np.testing.assert_array_equal(run(rounded, x, False), run(model, x, False), strict=True)
    assert half_tensors(model) == set()


def test_nodes_in_fp32_are_not_rounded_beside_those_in_fp16() -> None:
    model = typed(
        [cast("x", "h", HALF), cast("h", "wide", FLOAT), node("Add", ["wide", "tiny"], "y")],
        {"tiny": np.array(2.0**-15, dtype=np.float32)},
    )
    np.testing.assert_array_equal(run(rounded_from_typed(model), vector(1)), vector(1 + 2.0**-15), strict=True)


def test_node_names_are_kept_in_their_order_and_no_name_is_there_twice() -> None:
    model = polynomial()
    names = [found.name for found in rounded_from_typed(model).graph.node]
    assert [name for name in names if "__" not in name] == [found.name for found in model.graph.node]
    assert len(set(names)) == len(names) == len(model.graph.node) + 2 * len(half_tensors(model))


def test_the_typed_graph_itself_is_not_touched() -> None:
    model = polynomial()
    before = model.SerializeToString(deterministic=True)
    rounded_from_typed(model)
    assert model.SerializeToString(deterministic=True) == before


def test_half_tensors_are_those_that_nodes_make_in_fp16() -> None:
    assert half_tensors(polynomial()) == {"h", "square", "line", "difference", "positive"}


def test_an_fp16_output_of_the_graph_is_a_half_tensor_and_becomes_fp32() -> None:
    model = typed([cast("x", "h", HALF), node("Mul", ["h", "h"], "y")], given=HALF)
    assert half_tensors(model) == {"h", "y"}
    found = run(rounded_from_typed(model), vector(1 + 2.0**-12, 300.0, 3.0))
    np.testing.assert_array_equal(found, vector(1, np.inf, 9), strict=True)


def test_weights_keep_their_fp16_values_in_fp32() -> None:
    rounded = rounded_from_typed(scaled(0.1, 1 / 3))
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in rounded.graph.initializer}
    assert {name: array.dtype for name, array in found.items()} == {"factor": np.float32, "back": np.float32}
    assert found["factor"] == np.float32(np.float16(0.1))
    assert found["back"] == np.float32(np.float16(1 / 3))


def test_a_constant_node_in_fp16_is_rounded_with_the_rest() -> None:
    value = numpy_helper.from_array(np.array(1.5, dtype=np.float16), "value")
    model = typed(
        [
            cast("x", "h", HALF),
            node("Constant", [], "k", value=value),
            node("Mul", ["h", "k"], "m"),
            cast("m", "y", FLOAT),
        ]
    )
    np.testing.assert_array_equal(run(rounded_from_typed(model), vector(60000, 2)), vector(np.inf, 3), strict=True)


def test_every_fp16_output_of_a_node_with_several_is_rounded() -> None:
    model = typed(
        [
            node("Add", ["x", "x"], "twice"),
            cast("twice", "h", HALF),
            helper.make_node("Split", ["h"], ["left", "right"], "split", axis=0),
            node("Mul", ["left", "factor"], "large"),
            node("Concat", ["large", "right"], "joined", axis=0),
            cast("joined", "y", FLOAT),
        ],
        {"factor": np.array(2, dtype=np.float16)},
    )
    assert half_tensors(model) == {"h", "left", "right", "large", "joined"}
    found = run(rounded_from_typed(model), np.arange(SIZE, dtype=np.float32) * np.float32(6000.5))
    with np.errstate(over="ignore"):
        half = (np.arange(SIZE, dtype=np.float32) * np.float32(6000.5) * 2).astype(np.float16)
        expected = np.concatenate([half[:4] * np.float16(2), half[4:]]).astype(np.float32)
    assert np.isinf(expected).any()
    np.testing.assert_array_equal(found, expected, strict=True)


def test_an_fp16_input_of_the_graph_is_rounded_too() -> None:
    model = typed([node("Mul", ["x", "x"], "m"), cast("m", "y", FLOAT)], taken=HALF)
    found = run(rounded_from_typed(model), vector(1 + 2.0**-11))
    np.testing.assert_array_equal(found, vector(1), strict=True)  # rounds to 1 before it is squared


def test_nodes_without_names_are_rounded_like_any_other() -> None:
    model = typed([cast("x", "h", HALF), node("Mul", ["h", "h"], "m"), cast("m", "y", FLOAT)])
    for found in model.graph.node:
        found.name = ""
    np.testing.assert_array_equal(run(rounded_from_typed(model), vector(300, 2)), vector(np.inf, 4), strict=True)
