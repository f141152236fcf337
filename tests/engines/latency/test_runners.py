"""Runners as they are timed: bound inputs, tuned settings, threads as asked; TensorRT by events on its stream."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.engines.latency.machine import cpu_name, machine, usable_cpus
from deploy_attn.engines.latency.protocol import Effort, compare
from deploy_attn.engines.latency.runners import (
    candidate_from_runner,
    is_cpu,
    rival_settings,
    timed_runner,
    timed_settings,
)
from deploy_attn.engines.onnxruntime import CPU, CUDA, OnnxRuntimeRunner
from deploy_attn.engines.settings import Settings
from deploy_attn.engines.settings_file import settings_document, settings_file
from deploy_attn.jetson.artifact import Artifact, open_artifact
from deploy_attn.jetson.errors import BadRequest
from tests.engines.latency.fakes import bench
from tests.engines.test_tensorrt import FP32, Machine, exported_to


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "eca"
    return export_artifact(ExportRequest("eca", shape=(1, 8, 5, 6), fp16=True, output=folder)).folder


@pytest.fixture
def artifact(exported: Path, tmp_path: Path) -> Artifact:
    return open_artifact(str(shutil.copytree(exported, tmp_path / "eca")))


def test_a_stopwatch_runs_the_graph_on_inputs_of_its_own(artifact: Artifact) -> None:
    feeds = {name: array.copy() for name, array in artifact.cases()[0].inputs.items()}
    with timed_runner(artifact, "onnxruntime", "fp32", Settings(intra_op_threads=1)) as runner:
        stopwatch = runner.stopwatch(feeds)
        assert 0 < stopwatch() < 10
        feeds["input"][:] = np.nan  # what is timed is bound, and does not follow
        assert 0 < stopwatch() < 10


def test_a_stopwatch_refuses_what_the_graph_does_not_take(artifact: Artifact) -> None:
    with timed_runner(artifact, "onnxruntime", "fp32", Settings()) as runner:
        with pytest.raises(BadRequest, match="takes inputs"):
            runner.stopwatch({})
        with pytest.raises(BadRequest, match="of shape 1x8x5x6"):
            runner.stopwatch({"input": np.zeros((1, 8, 5, 7), np.float32)})
    with pytest.raises(RuntimeError, match="not active"):
        runner.stopwatch(artifact.cases()[0].inputs)


def test_a_session_is_compared_with_a_second_one_of_itself(artifact: Artifact) -> None:
    feeds = artifact.cases()[0].inputs
    with ExitStack() as held:
        sides = [
            candidate_from_runner("eca", timed_runner(artifact, "onnxruntime", "fp32", Settings()), feeds, held)
            for _ in range(2)
        ]
        found = compare(sides[0], sides[1], None, Effort(pairs=30), bench())
    assert len(found.control.ratios) == 30
    assert found.candidate.conditions["engine"] == "onnxruntime"


def test_threads_do_not_spin_and_are_one_unless_asked_or_tuned(artifact: Artifact) -> None:
    assert timed_settings(artifact, "fp32", None) == Settings(CPU, 1, 1, spinning=False)
    tuned = Settings(intra_op_threads=1, level="basic", spinning=True)
    kept = {"fp32": {"settings": tuned.as_dict(), "tried": [], "verified": True}}
    settings_file(artifact.path).write_text(settings_document(artifact, kept, {}), encoding="utf-8")
    found = timed_settings(artifact, "fp32", usable_cpus())
    assert (found.level, found.intra_op_threads, found.spinning) == ("basic", usable_cpus(), False)
    assert timed_settings(artifact, "fp16", None).level == "all"


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_threads_that_there_are_not_are_refused(artifact: Artifact, threads: int) -> None:
    with pytest.raises(BadRequest, match="Possible are 1 to"):
        timed_settings(artifact, "fp32", threads)


def test_an_fp16_graph_is_timed_as_it_is_and_not_rounded(artifact: Artifact) -> None:
    runner = timed_runner(artifact, "onnxruntime", "fp16", Settings(level="basic"))
    assert isinstance(runner, OnnxRuntimeRunner)
    assert runner.conditions()["optimisation"] == "basic"
    assert runner._content == Path(artifact.file("model.fp16.onnx")).read_bytes()


def test_rivals_get_the_defaults_of_the_engine_s_own_provider() -> None:
    assert rival_settings("onnxruntime", 2) == Settings(CPU, 2, 1, spinning=False)
    assert rival_settings("onnxruntime-cuda", 1).provider == CUDA
    assert is_cpu("onnxruntime")
    assert not is_cpu("tensorrt")
    with pytest.raises(BadRequest, match="Unknown engine"):
        is_cpu("onnxruntim")


def test_tensorrt_is_timed_by_events_and_gives_back_all_that_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Machine(tmp_path, monkeypatch)
    place.use("8.2")
    folder = exported_to(tmp_path / "se", fp16=False)
    place.build(folder, FP32)
    artifact = open_artifact(str(folder))
    feeds = artifact.cases()[0].inputs
    with ExitStack() as held:
        sides = [
            candidate_from_runner("se", timed_runner(artifact, "tensorrt", "fp32", None), feeds, held) for _ in range(2)
        ]
        found = compare(sides[0], sides[1], None, Effort(pairs=6), bench())
        assert place.live > 0
    assert len(found.control.ratios) == 6
    assert found.candidate.conditions["engine"] == "tensorrt"
    assert place.live == 0


def test_an_engine_that_was_not_built_of_a_precision_says_how_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Machine(tmp_path, monkeypatch)
    place.use("8.2")
    folder = exported_to(tmp_path / "se")
    place.build(folder, FP32)
    with pytest.raises(BadRequest, match="--precision fp16"):
        timed_runner(open_artifact(str(folder)), "tensorrt", "fp16", None)


def test_the_machine_is_told_as_json_values() -> None:
    found = machine()
    assert found["cpu"] == cpu_name()
    assert found["cpus"] == usable_cpus() >= 1
