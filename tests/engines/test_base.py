"""What every engine shares: how one is found, when it is alive, and which feeds it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from deploy_attn.engines.base import ENGINES, Engine, Graph, Runner, engine_class
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.tolerance import TOLERANCES
from deploy_attn.jetson.artifact import Artifact
from deploy_attn.jetson.errors import BadRequest

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def model() -> bytes:
    """y = x + shift over an open batch, and a scalar that passes through."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3]),
        helper.make_tensor_value_info("shift", TensorProto.FLOAT, [3]),
        helper.make_tensor_value_info("count", TensorProto.INT64, []),
    ]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3]),
        helper.make_tensor_value_info("same_count", TensorProto.INT64, []),
    ]
    nodes = [
        helper.make_node("Add", ["x", "shift"], ["y"], "add"),
        helper.make_node("Identity", ["count"], ["same_count"], "same"),
    ]
    graph = helper.make_graph(nodes, "shifted", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    content: bytes = made.SerializeToString()
    return content


@pytest.fixture
def runner(model: bytes) -> Iterator[Runner]:
    with OnnxRuntimeRunner(model) as active:
        yield active


def feeds(**changed: Array) -> dict[str, Array]:
    return {
        "x": np.ones((2, 3), dtype=np.float32),
        "shift": np.array([1, 2, 3], dtype=np.float32),
        "count": np.array(7, dtype=np.int64),
        **changed,
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_of_the_table_takes_an_artifact(engine: str) -> None:
    found = engine_class(engine)
    assert issubclass(found, Engine)
    assert not found.__abstractmethods__


@pytest.mark.parametrize(
    ("engine", "precision", "ways"),
    [
        ("onnxruntime", "fp32", [("exact", "fp32")]),
        ("onnxruntime", "fp16", [("optimistic", "fp16"), ("pessimistic", "fp16-rounded")]),
        ("onnxruntime-cuda", "fp32", [("exact", "fp32")]),
        ("onnxruntime-cuda", "fp16", [("device", "fp16")]),
        ("onnxruntime-tensorrt", "fp32", [("exact", "fp32")]),
        ("onnxruntime-tensorrt", "fp16", [("device", "fp16")]),
    ],
)
def test_an_engine_s_ways_of_running_a_graph_are_known_before_anything_runs(
    model: bytes, engine: str, precision: str, ways: list[tuple[str, str]]
) -> None:
    runs = list(engine_class(engine)(Artifact("nowhere", {})).runs(Graph("model.onnx", precision, model)))
    assert [(run.bracket, run.tolerance) for run in runs] == ways
    assert {run.tolerance for run in runs} <= set(TOLERANCES)
    assert all(isinstance(run.runner, Runner) for run in runs)


@pytest.mark.parametrize("engine", ["onnx-runtime", "", "deploy_attn.engines.onnxruntime:OnnxRuntimeRunner"])
def test_an_unknown_engine_is_answered_with_the_known_ones(engine: str) -> None:
    with pytest.raises(BadRequest) as raised:
        engine_class(engine)
    assert repr(engine) in str(raised.value)
    assert all(name in str(raised.value) for name in ENGINES)


def test_outputs_come_back_by_name(runner: Runner) -> None:
    outputs = runner.infer(feeds())
    assert list(outputs) == ["y", "same_count"]
    np.testing.assert_array_equal(outputs["y"], np.array([[2, 3, 4]] * 2, dtype=np.float32), strict=True)
    assert outputs["same_count"] == 7


def test_nothing_is_loaded_before_the_context_is_entered() -> None:
    runner = OnnxRuntimeRunner(b"no model at all")
    with pytest.raises(RuntimeError, match="not active"):
        runner.infer({})


def test_a_runner_is_not_active_outside_its_context(model: bytes) -> None:
    runner = OnnxRuntimeRunner(model)
    with pytest.raises(RuntimeError, match="with runner"):
        runner.infer(feeds())
    with runner:
        runner.infer(feeds())
    with pytest.raises(RuntimeError, match="with runner"):
        runner.infer(feeds())


def test_a_runner_is_not_active_after_an_exception_in_its_context(model: bytes) -> None:
    runner = OnnxRuntimeRunner(model)
    with pytest.raises(ZeroDivisionError), runner:
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="not active"):
        runner.infer(feeds())


def test_a_runner_can_be_entered_again(model: bytes) -> None:
    runner = OnnxRuntimeRunner(model)
    for _ in range(2):
        with runner:
            assert runner.infer(feeds())["same_count"] == 7


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_an_open_batch_takes_any_extent(runner: Runner, batch: int) -> None:
    assert runner.infer(feeds(x=np.ones((batch, 3), dtype=np.float32)))["y"].shape == (batch, 3)


@pytest.mark.parametrize("missing", ["x", "shift", "count"])
def test_a_missing_input_is_answered_with_those_that_the_graph_takes(runner: Runner, missing: str) -> None:
    given = feeds()
    del given[missing]
    with pytest.raises(BadRequest) as raised:
        runner.infer(given)
    assert f"takes inputs ['count', 'shift', 'x'], got {sorted(given)}" in str(raised.value)


def test_an_unknown_input_is_refused_by_name(runner: Runner) -> None:
    with pytest.raises(BadRequest, match=r"takes inputs \['count', 'shift', 'x'\], got .*'mask'"):
        runner.infer(feeds(mask=np.ones(1)))


@pytest.mark.parametrize(
    ("name", "array", "expected", "found"),
    [
        ("x", np.ones((2, 4), dtype=np.float32), "float32 of shape ?x3", "float32 of shape 2x4"),
        ("x", np.ones(3, dtype=np.float32), "float32 of shape ?x3", "float32 of shape 3"),
        ("x", np.ones((1, 2, 3), dtype=np.float32), "float32 of shape ?x3", "float32 of shape 1x2x3"),
        ("x", np.ones((2, 3)), "float32 of shape ?x3", "float64 of shape 2x3"),
        ("x", np.ones((2, 3), dtype=np.float16), "float32 of shape ?x3", "float16 of shape 2x3"),
        ("x", np.ones((2, 3), dtype=">f4"), "float32 of shape ?x3", "of shape 2x3"),
        ("shift", np.ones(1, dtype=np.float32), "float32 of shape 3", "float32 of shape 1"),
        ("count", np.array(7, dtype=np.int32), "int64 of shape", "int32 of shape"),
        ("count", np.array([7], dtype=np.int64), "int64 of shape", "int64 of shape 1"),
    ],
)
def test_an_input_of_another_shape_or_type_is_told_what_is_expected(
    runner: Runner, name: str, array: Array, expected: str, found: str
) -> None:
    with pytest.raises(BadRequest) as raised:
        runner.infer(feeds(**{name: array}))
    assert raised.value.exit_code == 2
    wanted, _, got = str(raised.value).partition(", got ")
    assert wanted.startswith(f"Input {name!r} takes {expected}")
    assert found in got


def test_a_refused_feed_leaves_the_runner_usable(runner: Runner) -> None:
    with pytest.raises(BadRequest):
        runner.infer({})
    assert runner.infer(feeds())["same_count"] == 7
