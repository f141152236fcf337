"""Real children that build with the real TensorRT-RTX, which needs no GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy_attn.jetson import tensorrt_child
from deploy_attn.jetson.cudart import VARIABLE
from deploy_attn.jetson.errors import BadRequest
from tests.jetson import stub
from tests.jetson.builds import PLAN, gate


class Bench:
    """A folder with a model, and builds of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / tensorrt_child.MODEL).write_bytes(gate())

    def build(self, on_progress: Callable[[Mapping[str, Any]], None] | None = None, **asked: Any) -> dict[str, Any]:
        return tensorrt_child.build(str(self.folder), asked, on_progress)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(("typed", "capability"), [(True, "SM86"), (False, "SM120")])
def test_tensorrt_rtx_builds_in_the_same_child(bench: Bench, typed: bool, capability: str) -> None:
    (bench.folder / tensorrt_child.MODEL).write_bytes(gate(typed=typed))
    told: list[Mapping[str, Any]] = []
    precision = "fp16" if typed else "fp32"
    outcome = bench.build(
        told.append, module="tensorrt_rtx", compute_capability=capability, precision=precision, typed=typed
    )
    assert outcome["built"] and capability in outcome["capabilities"]
    assert (outcome["precision_problems"], outcome["refusals"]) == ([], [])
    assert any(text.startswith("Layers:\n") for _, text in outcome["messages"])
    assert ("half" in {kind for layer in outcome["layers"] for kind in layer["inputs"]}) == typed
    assert {"phase", "step", "steps"} == set(told[0])
    assert os.path.getsize(bench.folder / tensorrt_child.ENGINE) > 1000


@pytest.mark.parametrize("here", ["8.6", "9.0"])
def test_tensorrt_rtx_builds_for_a_gpu_whatever_gpu_is_here(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: str
) -> None:
    monkeypatch.setenv(VARIABLE, stub.compiled(str(tmp_path)))
    monkeypatch.setenv(stub.COMPUTE_CAPABILITY, here)
    outcome = bench.build(module="tensorrt_rtx", compute_capability="SM86", typed=True)
    assert outcome["device"] == {"name": "Stub GPU", "compute_capability": here}
    assert outcome["built"]


def test_tensorrt_rtx_refuses_through_the_same_child(bench: Bench) -> None:
    outcome = bench.build(module="tensorrt_rtx", compute_capability="SM99")
    assert not outcome["built"] and "SM86" in outcome["capabilities"]
    with pytest.raises(BadRequest, match=r"FP16 was asked for with the FP32 graph"):
        bench.build(module="tensorrt_rtx", precision="fp16", plan=PLAN)
