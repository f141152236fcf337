"""`fuse`: an artifact's module as one operator, held to the artifact, and what cannot be fused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from deploy_attn import create
from deploy_attn.engines.fused.session import fused_session
from deploy_attn.exporting import export_artifact
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
    import onnxruntime as ort

    fused = fuse(artifact, tmp_path / "gct.onnx")
    assert fused.passed
    assert {check.case for check in fused.checks} == {"normal", "far_mean", "large"}
    graph = onnx.load(tmp_path / "gct.onnx").graph
    assert [(node.domain, node.op_type) for node in graph.node] == [("deploy_attn", "gct")]
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    session = ort.InferenceSession(artifact / "model.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input": x})[0]
    found = fused_session((tmp_path / "gct.onnx").read_bytes()).run(None, {"input": x})[0]
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


def test_the_command_writes_beside_the_folder_and_replaces_only_when_asked(
    artifact: Path, cli: Callable[..., Finished]
) -> None:
    first = cli("fuse", artifact)
    beside = artifact.with_name("gct.fused.onnx")
    assert first.exit_code == 0, first.stderr
    assert beside.is_file()
    assert "register_custom_ops_library" in first.stdout
    again = cli("fuse", artifact)
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)
    told = json.loads(cli("fuse", artifact, "--force", "--json").stdout)
    assert (told["passed"], told["file"]) == (True, str(beside))


def test_a_folder_that_is_no_artifact_is_refused(tmp_path: Path, cli: Callable[..., Finished]) -> None:
    done = cli("fuse", tmp_path, "-o", tmp_path / "x.onnx")
    assert (done.exit_code, "not an artifact" in done.stderr) == (2, True)
