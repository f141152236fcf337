"""`fuse`: an artifact's module as one operator, held to the artifact, and what cannot be fused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from deploy_attn import create
from deploy_attn.engines.fused.engine import FusedRunner
from deploy_attn.engines.fused.graph_file import FUSED_GRAPH
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.exporting import export_artifact
from deploy_attn.fusing import fuse as fusing
from deploy_attn.fusing.fuse import fuse
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.request import ExportRequest
from tests.conftest import Finished

SHAPE = (1, 16, 8, 8)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fusing") / "gct"
    export_artifact(ExportRequest("gct", shape=SHAPE, output=folder))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An artifact of a checkpoint, and the checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(5)
    module = create("cbam", channels=16)
    torch.save(module.state_dict(), folder / "cbam.pt")
    export_artifact(ExportRequest("cbam", shape=SHAPE, checkpoint=folder / "cbam.pt", output=folder / "cbam"))
    return folder / "cbam", folder / "cbam.pt"


def test_one_operator_computes_what_the_artifacts_graph_does(artifact: Path, tmp_path: Path) -> None:
    fused = fuse(artifact, tmp_path / "gct.onnx")
    assert fused.passed
    assert {check.case for check in fused.checks} == {"normal", "far_mean", "large"}
    graph = onnx.load(tmp_path / "gct.onnx").graph
    assert [(node.domain, node.op_type) for node in graph.node] == [("deploy_attn", "gct")]
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    own = OnnxRuntimeRunner((artifact / "model.onnx").read_bytes())
    with own, FusedRunner((tmp_path / "gct.onnx").read_bytes()) as runner:
        expected, found = (one.infer({"input": x})["output"] for one in (own, runner))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_weights_of_a_checkpoint_are_asked_for_and_taken(trained: tuple[Path, Path], tmp_path: Path) -> None:
    folder, checkpoint = trained
    with pytest.raises(BadRequest, match=r"with the checkpoint cbam\.pt\. Name it with --checkpoint"):
        fuse(folder, tmp_path / "cbam.onnx")
    assert fuse(folder, tmp_path / "cbam.onnx", checkpoint).passed


def test_other_weights_are_found_by_the_parity_cases_and_nothing_is_written(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.pt"
    torch.save(create("cbam", channels=16).state_dict(), other)
    with pytest.raises(DeployAttnError, match="Nothing was written"):
        fuse(trained[0], tmp_path / "cbam.onnx", other)
    assert not (tmp_path / "cbam.onnx").exists()


def test_a_module_without_an_operator_is_refused_with_those_that_have_one(tmp_path: Path) -> None:
    export_artifact(ExportRequest("se", shape=SHAPE, output=tmp_path / "se"))
    with pytest.raises(BadRequest, match="is of se, which has no fused operator: cbam, gct"):
        fuse(tmp_path / "se")


def test_the_command_writes_into_the_folder_and_again_in_place_of_what_it_left(
    artifact: Path, cli: Callable[..., Finished]
) -> None:
    inside = artifact / FUSED_GRAPH
    first = cli("fuse", artifact)
    assert first.exit_code == 0, first.stderr
    assert f"deploy-attn verify {artifact} --engine onnxruntime-fused" in first.stdout
    assert "register_custom_ops_library" in first.stdout
    inside.write_bytes(b"")
    told = json.loads(cli("fuse", artifact, "--json").stdout)
    assert (told["passed"], told["file"], told["engine"]) == (True, str(inside), "onnxruntime-fused")
    assert onnx.load(inside).graph.node[0].op_type == "gct"
    assert FUSED_GRAPH not in json.loads((artifact / "manifest.json").read_text())["files"]


def test_a_file_elsewhere_is_replaced_only_when_asked(
    artifact: Path, tmp_path: Path, cli: Callable[..., Finished]
) -> None:
    file = tmp_path / "gct.onnx"
    first = cli("fuse", artifact, "-o", file)
    assert (first.exit_code, "--engine onnxruntime-fused" in first.stdout) == (0, False)
    again = cli("fuse", artifact, "-o", file)
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)
    told = json.loads(cli("fuse", artifact, "-o", file, "--force", "--json").stdout)
    assert (told["passed"], told["file"], told["engine"]) == (True, str(file), None)


def test_a_folder_that_takes_no_file_is_told_before_the_work(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusing, "fused_library", None)
    folder = Path(shutil.copytree(artifact, tmp_path / "gct"))
    (folder / FUSED_GRAPH).unlink(missing_ok=True)
    (folder / FUSED_GRAPH).mkdir()
    with pytest.raises(BadRequest, match=f"{FUSED_GRAPH} cannot be written: Is a directory"):
        fuse(folder)


def test_an_export_in_place_of_an_artifact_takes_the_fused_graph_with_it(artifact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "gct"))
    fuse(folder)
    export_artifact(ExportRequest("gct", shape=SHAPE, output=folder, force=True))
    assert not (folder / FUSED_GRAPH).exists()


def test_a_folder_that_is_no_artifact_is_refused(tmp_path: Path, cli: Callable[..., Finished]) -> None:
    done = cli("fuse", tmp_path, "-o", tmp_path / "x.onnx")
    assert (done.exit_code, "not an artifact" in done.stderr) == (2, True)
