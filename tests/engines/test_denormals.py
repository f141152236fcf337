"""Subnormal numbers as zero: on every thread that computes, for one call, whatever the process did before."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from deploy_attn.engines import denormals
from deploy_attn.engines import onnxruntime as engine
from deploy_attn.engines.denormals import DenormalsAsZero, can_zero_denormals, check_denormals
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner, Settings
from deploy_attn.jetson.errors import BadRequest

SUBNORMAL = np.float32(1e-39)
HERE = pytest.mark.skipif(
    (platform.system(), platform.machine()) not in {("Linux", "x86_64"), ("Linux", "aarch64")},
    reason="such a machine has no switch that is known",
)


def halved(size: int) -> bytes:
    """A graph that halves a vector."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in "xy")
    half = helper.make_tensor("half", TensorProto.FLOAT, [1], [0.5])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "half"], ["y"], "node")], "graph", [x], [y], [half])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    content: bytes = model.SerializeToString()
    return content


def a_product() -> float:
    return float(np.multiply(SUBNORMAL, np.float32(0.5)))


@HERE
def test_a_block_reads_subnormal_numbers_as_zero_and_leaves_the_thread_as_it_was() -> None:
    assert can_zero_denormals()
    with DenormalsAsZero():
        written = np.multiply(np.float32(2e-38), np.float32(0.1))
        assert a_product() == 0
        assert np.multiply(SUBNORMAL, np.float32(1e30)) == 0, "also where what comes of them is large enough"
    assert written == 0
    assert a_product() > 0
    with pytest.raises(KeyError), DenormalsAsZero():
        raise KeyError
    assert a_product() > 0


@HERE
@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_flushes_on_all_its_threads_also_where_it_is_not_the_first(threads: int) -> None:
    size = 1 << 20  # so that the product is shared out
    feeds = {"x": np.full(size, SUBNORMAL)}
    for denormals_zero in (False, True, False):
        settings = Settings(intra_op_threads=threads, denormals_zero=denormals_zero, spinning=False)
        with OnnxRuntimeRunner(halved(size), settings=settings) as runner:
            y = runner.infer(feeds)["y"]
            assert runner.conditions()["denormals"] == ("zero" if denormals_zero else "kept")
        assert bool((y == 0).all()) is denormals_zero
        assert bool((y == 0).any()) is denormals_zero


@HERE
def test_the_timed_call_flushes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[float] = []

    class Seen(DenormalsAsZero):
        def __exit__(self, *raised: object) -> None:
            blocks.append(a_product())
            super().__exit__(*raised)

    monkeypatch.setattr(engine, "DenormalsAsZero", Seen)
    with OnnxRuntimeRunner(halved(2), settings=Settings(denormals_zero=True)) as runner:
        assert runner.stopwatch({"x": np.full(2, SUBNORMAL)})() > 0
    assert blocks == [0, 0], "the call that checks the inputs, and the timed one"
    assert a_product() > 0


@HERE
def test_the_first_session_of_a_process_does_not_change_its_thread() -> None:
    code = (
        "from tests.engines.test_denormals import *\n"
        "with OnnxRuntimeRunner(halved(2), settings=Settings(denormals_zero=True)) as runner:\n"
        "    print(runner.infer({'x': np.full(2, SUBNORMAL)})['y'].max(), a_product() > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0.0", "True"], done.stderr


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A machine of which nothing is known."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    denormals._fenv.cache_clear()
    yield
    denormals._fenv.cache_clear()


@pytest.mark.usefixtures("elsewhere")
def test_where_there_is_no_switch_the_request_is_refused_and_nothing_else_changes() -> None:
    assert not can_zero_denormals()
    with pytest.raises(BadRequest, match="riscv64 that cannot be switched"):
        check_denormals()
    runner = OnnxRuntimeRunner(halved(2), settings=Settings(denormals_zero=True))
    with pytest.raises(BadRequest, match="without denormals_zero"), runner:
        pytest.fail("it computes something else than was asked for")
    with OnnxRuntimeRunner(halved(2)) as runner:
        assert runner.infer({"x": np.ones(2, np.float32)})["y"][0] == 0.5
