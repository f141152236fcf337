"""From a graph to numbers: built by the child's own code, loaded by the runner's, computed by a real engine."""

from pathlib import Path
from typing import Tuple

import numpy as np
import pytest

from deploy_attn.jetson import tensorrt_build
from deploy_attn.jetson.cudart import VARIABLE, Cudart
from deploy_attn.jetson.metrics import compare, within
from deploy_attn.jetson.tensorrt_engine import TensorRtEngine
from tests.jetson import stub
from tests.jetson.builds import Bench, gate
from tests.jetson.fake_tensorrt import versions

pytestmark = pytest.mark.real_engine
OPEN = {"x": [[1, 4, 8, 8], [2, 4, 8, 8], [4, 4, 8, 8]]}


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (4, 4, 8, 8)], ids=["smallest", "largest"])
@pytest.mark.parametrize("version", versions.VERSIONS)
def test_an_engine_that_was_built_computes_what_its_graph_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, shape: Tuple[int, ...]
) -> None:
    monkeypatch.setattr(tensorrt_build, "find_device", lambda: (None, "the stub of CUDA stands in"))
    monkeypatch.setenv(VARIABLE, stub.compiled(str(tmp_path)))
    bench = Bench(monkeypatch, tmp_path)
    assert bench.build(version, gate(("n", 4, 8, 8)), profile=OPEN)["built"]
    x = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
    content = (tmp_path / tensorrt_build.ENGINE).read_bytes()
    with TensorRtEngine(content, versions.module(version), Cudart()) as engine:
        found = engine.infer({"x": x})["y"]
    squeezed = x.astype(np.float64).mean((2, 3), keepdims=True).sum(1, keepdims=True)
    assert within(compare(found, x * 2 * np.maximum(squeezed, 0)), 1e-6, 1e-5)
