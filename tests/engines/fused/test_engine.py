"""The engine `onnxruntime-fused`: it runs the graph that `fuse` left, and no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy_attn.engines.base import engine_class
from deploy_attn.engines.fused.engine import FusedRunner, OnnxRuntimeFused
from deploy_attn.engines.fused.graph_file import ENGINE, FUSED_GRAPH, content_of
from deploy_attn.engines.fused.library import library_file
from deploy_attn.engines.loading import load
from deploy_attn.engines.parity import verify
from deploy_attn.exporting import export_artifact
from deploy_attn.fusing.fuse import fuse
from deploy_attn.jetson.artifact import open_artifact
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.request import ExportRequest
from tests.conftest import Finished

SHAPE = (1, 16, 8, 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of both precisions with its fused graph, one of other weights with its own, and one without."""
    folder = tmp_path_factory.mktemp("fused")
    export_artifact(ExportRequest("cbam", shape=SHAPE, fp16=True, output=folder / "cbam"))
    export_artifact(ExportRequest("cbam", shape=SHAPE, seed=7, output=folder / "other"))
    for name in ("cbam", "other"):
        fuse(folder / name)
    export_artifact(ExportRequest("srm", shape=SHAPE, output=folder / "bare"))
    return folder


@pytest.fixture
def cbam(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "cbam", tmp_path / "cbam"))


def test_verify_holds_the_fused_graph_to_the_reference_in_fp32(cbam: Path) -> None:
    verdict = verify(cbam, ENGINE)
    assert verdict.passed
    assert {(check.precision, check.bracket) for check in verdict.checks} == {("fp32", "exact")}
    told = {name: verdict.conditions[name] for name in ("engine", "provider", "intra_op_threads", "graph", "library")}
    assert told == {
        "engine": ENGINE,
        "provider": "CPUExecutionProvider",
        "intra_op_threads": 1,
        "graph": "one fused operator",
        "library": library_file().name,
    }
    assert json.loads((cbam / f"verdict-{ENGINE}.json").read_text())["passed"] is True


def test_loaded_it_computes_what_the_artifacts_graph_does_for_any_batch_and_size(cbam: Path) -> None:
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    with load(cbam) as own, load(cbam, engine=ENGINE) as fused:
        expected, found = (runner.infer({"input": x})["output"] for runner in (own, fused))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        twice = fused.infer({"input": np.concatenate([x, x])})["output"]
        np.testing.assert_array_equal(twice, np.concatenate([found, found]))
        assert fused.infer({"input": x[:, :, :5, :3]})["output"].shape == (1, 16, 5, 3)
        assert fused.stopwatch({"input": x})() > 0


def test_settings_that_were_tuned_for_the_artifacts_graph_are_not_its_own(cbam: Path) -> None:
    (cbam / "settings-onnxruntime.json").write_text("not settings")
    with load(cbam, engine=ENGINE) as runner:
        assert runner.conditions()["intra_op_threads"] == 1


def test_it_is_of_the_table_and_has_settings_that_cannot_be_chosen() -> None:
    assert engine_class(ENGINE) is OnnxRuntimeFused
    assert OnnxRuntimeFused.fixed is not None
    assert OnnxRuntimeFused.fixed.intra_op_threads == 1


def test_without_a_fused_graph_the_command_that_makes_one_is_told(
    made: Path, tmp_path: Path, cli: Callable[..., Finished]
) -> None:
    folder = shutil.copytree(made / "bare", tmp_path / "bare")
    done = cli("verify", folder, "--engine", ENGINE)
    assert done.exit_code == 2
    assert f"`deploy-attn fuse {folder}`" in done.stderr
    assert not (tmp_path / "bare" / f"verdict-{ENGINE}.json").exists()


def changed(change: Callable[[onnx.ModelProto], None], signed: bool) -> Callable[[Path], None]:
    """A change of the stored graph, with or without the hashes that belong to it."""

    def apply(folder: Path) -> None:
        model = onnx.load(folder / FUSED_GRAPH)
        change(model)
        artifact = open_artifact(str(folder))
        content = content_of(model, artifact) if signed else model.SerializeToString()
        (folder / FUSED_GRAPH).write_bytes(content)

    return apply


def other_weights(model: onnx.ModelProto) -> None:
    values = onnx.numpy_helper.to_array(model.graph.initializer[0]) * np.float32(1.001)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, "parameters"))


def weights_elsewhere(model: onnx.ModelProto) -> None:
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "/etc/hostname")


def another_node(model: onnx.ModelProto) -> None:
    model.graph.node.append(onnx.helper.make_node("Identity", ["input"], ["more"]))


def no_folder(folder: Path) -> None:
    (folder / FUSED_GRAPH).unlink()
    (folder / FUSED_GRAPH).mkdir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.copy(folder.parent / "other.onnx", folder / FUSED_GRAPH), "is of another export"),
        (changed(lambda model: model.ClearField("metadata_props"), False), r"of another export.*manifest unknown"),
        (changed(other_weights, False), "changed since it was written"),
        (changed(weights_elsewhere, True), "changed since it was written"),
        (changed(another_node, True), "changed since it was written"),
        (lambda folder: (folder / FUSED_GRAPH).write_bytes(b"not a graph"), "is not read as a graph"),
        (lambda folder: (folder / FUSED_GRAPH).write_bytes(b""), "is of another export"),
        (no_folder, "is not a plain file"),
    ],
    ids=["of another", "no properties", "weights", "elsewhere", "another node", "garbage", "empty", "a folder"],
)
def test_a_graph_that_is_not_what_fuse_wrote_is_refused_with_the_remedy(
    made: Path, cbam: Path, change: Callable[[Path], None], message: str
) -> None:
    shutil.copy(made / "other" / FUSED_GRAPH, cbam.parent / "other.onnx")
    change(cbam)
    with pytest.raises(BadRequest, match=rf"(?s){message}.*again with `deploy-attn fuse"):
        load(cbam, engine=ENGINE)


def test_an_artifact_of_any_batch_is_held_to_each_of_its_cases(tmp_path: Path) -> None:
    export_artifact(ExportRequest("simam", shape=SHAPE, dynamic_batch=True, output=tmp_path / "simam"))
    fuse(tmp_path / "simam")
    verdict = verify(tmp_path / "simam", ENGINE)
    assert verdict.passed
    assert {check.case for check in verdict.checks} == set(open_artifact(str(tmp_path / "simam")).manifest["cases"])


def test_two_runs_of_one_session_do_not_share_their_outputs(cbam: Path) -> None:
    with FusedRunner((cbam / FUSED_GRAPH).read_bytes()) as runner:
        ones = runner.infer({"input": np.ones(SHAPE, np.float32)})["output"]
        kept = ones.copy()
        runner.infer({"input": np.zeros(SHAPE, np.float32)})
    np.testing.assert_array_equal(ones, kept)
