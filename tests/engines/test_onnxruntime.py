"""onnxruntime on the CPU: runs graphs, says its conditions, says what to install, and never needs torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.jetson.errors import BadRequest


def one_node(operator: str, kind: int) -> bytes:
    """A graph of one node on a vector of two."""
    x, y = (helper.make_tensor_value_info(name, kind, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], "node")], "graph", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("optimise", [True, False])
def test_a_tiny_graph_runs(optimise: bool) -> None:
    with OnnxRuntimeRunner(one_node("Neg", TensorProto.FLOAT), optimise) as runner:
        outputs = runner.infer({"x": np.array([1.5, -2.0], dtype=np.float32)})
    np.testing.assert_array_equal(outputs["y"], np.array([-1.5, 2.0], dtype=np.float32), strict=True)


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float16", "float64", "bool", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"],
)
def test_an_input_of_any_number_type_is_taken_as_it_is(dtype: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = np.array([0, 1], dtype=dtype)
    with OnnxRuntimeRunner(one_node("Identity", kind)) as runner:
        np.testing.assert_array_equal(runner.infer({"x": x})["y"], x, strict=True)
        with pytest.raises(BadRequest, match=f"takes {dtype} of shape 2, got complex64 of shape 2"):
            runner.infer({"x": x.astype(np.complex64)})


@pytest.mark.parametrize(("optimise", "level"), [(True, "all"), (False, "none")])
def test_the_conditions_are_json_and_known_before_anything_is_loaded(optimise: bool, level: str) -> None:
    conditions = OnnxRuntimeRunner(b"", optimise).conditions()
    assert json.loads(json.dumps(conditions, allow_nan=False)) == conditions
    assert conditions == {
        "engine": "onnxruntime",
        "version": onnxruntime.__version__,
        "providers": ["CPUExecutionProvider"],
        "optimisation": level,
    }


def test_two_runs_of_one_session_do_not_share_their_outputs() -> None:
    with OnnxRuntimeRunner(one_node("Neg", TensorProto.FLOAT)) as runner:
        first = runner.infer({"x": np.ones(2, dtype=np.float32)})["y"]
        runner.infer({"x": np.zeros(2, dtype=np.float32)})
    np.testing.assert_array_equal(first, [-1.0, -1.0])


def test_a_refused_graph_raises_says_why_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    runner = OnnxRuntimeRunner(one_node("NoSuchOperator", TensorProto.FLOAT))
    with pytest.raises(Exception, match="NoSuchOperator"), runner:
        pytest.fail("the graph was accepted")
    with pytest.raises(RuntimeError, match="not active"):
        runner.infer({"x": np.ones(2, dtype=np.float32)})
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_fails_while_it_runs_raises_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    index = helper.make_tensor_value_info("index", TensorProto.INT64, [2])
    graph = helper.make_graph([helper.make_node("Gather", ["x", "index"], ["y"], "pick")], "graph", [x, index], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    with OnnxRuntimeRunner(model.SerializeToString()) as runner:
        with pytest.raises(Exception, match="pick"):
            runner.infer({"x": np.ones(2, dtype=np.float32), "index": np.array([0, 5])})
        runner.infer({"x": np.ones(2, dtype=np.float32), "index": np.array([0, 1])})
    assert capfd.readouterr() == ("", "")


def test_without_onnxruntime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    runner = OnnxRuntimeRunner(one_node("Neg", TensorProto.FLOAT))
    with pytest.raises(BadRequest, match=r"pip install 'deploy-attn\[cpu\]'") as raised:
        runner.conditions()
    assert raised.value.exit_code == 2
    with pytest.raises(BadRequest, match=r"Engine onnxruntime was asked for and cannot be imported"), runner:
        pytest.fail("a missing engine was entered")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    request = ExportRequest("se", shape=(1, 8, 5, 6), fp16=True, options={"reduction": 4}, output=tmp_path / "se")
    return export_artifact(request).folder


def test_no_module_of_the_room_needs_torch_and_an_artifact_is_verified_without_it(artifact: Path) -> None:
    code = """
import sys
sys.modules["torch"] = sys.modules["onnxsim"] = sys.modules["deploy_attn.export"] = None
import importlib, pkgutil
import deploy_attn.engines
names = [found.name for found in pkgutil.walk_packages(deploy_attn.engines.__path__, "deploy_attn.engines.")]
for name in names:
    importlib.import_module(name)
verdict = deploy_attn.engines.verify(sys.argv[1])
print(len(names), len(verdict.checks), verdict.passed)
"""
    done = subprocess.run([sys.executable, "-c", code, str(artifact)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules, checks, passed = done.stdout.split()
    assert int(modules) >= 5
    assert (checks, passed) == ("9", "True")
