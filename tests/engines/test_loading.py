"""`engines.load`: the graph that fits the engine, with the settings that were tuned for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deploy_attn import ExportRequest, export_artifact, verify
from deploy_attn.engines import load
from deploy_attn.engines.settings import Settings
from deploy_attn.engines.settings_file import settings_document, settings_file
from deploy_attn.jetson.artifact import open_artifact
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact

TUNED = Settings(intra_op_threads=1, level="basic", spinning=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "eca"
    return export_artifact(ExportRequest("eca", shape=(1, 8, 5, 6), fp16=True, output=folder)).folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "eca"))


def keep(folder: Path, **settings: Settings) -> None:
    """Stores settings by precision."""
    tuned = {name: {"settings": one.as_dict(), "tried": [], "verified": True} for name, one in settings.items()}
    text = settings_document(open_artifact(str(folder)), tuned, {})
    settings_file(folder).write_text(text, encoding="utf-8")


def test_a_graph_runs_with_the_defaults_where_nothing_was_tuned(folder: Path) -> None:
    case = open_artifact(str(folder)).cases()[0]
    with load(folder) as runner:
        outputs = runner.infer(case.inputs)
        conditions = runner.conditions()
    np.testing.assert_allclose(outputs["output"], case.outputs["output"], atol=1e-5)
    assert (conditions["optimisation"], conditions["intra_op_threads"], conditions["denormals"]) == ("all", 0, "kept")


def test_a_graph_runs_with_what_was_tuned_for_its_precision(folder: Path) -> None:
    keep(folder, fp32=TUNED)
    assert load(folder).conditions()["optimisation"] == "basic"
    assert load(folder, precision="fp32").conditions()["intra_op_threads"] == 1
    assert load(folder, precision="fp16").conditions()["optimisation"] == "all"
    keep(folder, fp16=TUNED)
    assert load(folder, precision="fp16").conditions()["optimisation"] == "basic"


def test_what_is_verified_is_what_is_loaded_and_the_verdict_says_so(folder: Path) -> None:
    assert "settings" not in verify(folder).conditions
    keep(folder, fp32=TUNED, fp16=TUNED)
    verdict = verify(folder)
    assert verdict.passed
    written = json.loads((folder / "verdict-onnxruntime.json").read_text(encoding="utf-8"))
    assert written["conditions"]["settings"] == {"fp32": TUNED.as_dict(), "fp16": TUNED.as_dict()}
    assert written["conditions"]["optimisation"] == "basic"


def test_settings_of_another_export_are_an_error_for_loading_and_verifying(folder: Path) -> None:
    keep(folder, fp32=TUNED)
    file = settings_file(folder)
    file.write_text(file.read_text(encoding="utf-8").replace('_sha256": "', '_sha256": "0'), encoding="utf-8")
    for use in (load, verify):
        with pytest.raises(BadRequest, match=r"tuned for another export.*deploy-attn tune .* or delete"):
            use(folder)


@pytest.mark.parametrize(
    ("engine", "precision", "words"),
    [
        ("onnxruntime", "int8", "no graph in 'int8'; it has fp32 and fp16. Name one of these"),
        ("tensor", None, "Unknown engine 'tensor'"),
    ],
)
def test_what_is_not_there_is_refused(engine: str, precision: str | None, words: str, folder: Path) -> None:
    with pytest.raises(BadRequest, match=words):
        load(folder, engine, precision)


def test_an_artifact_of_fp32_alone_says_how_to_have_fp16(tmp_path: Path) -> None:
    folder = export_artifact(ExportRequest("eca", shape=(1, 8, 5, 6), output=tmp_path / "eca")).folder
    with pytest.raises(BadRequest, match=r"no graph in .fp16.; it has fp32\. Export it with --fp16"):
        load(folder, precision="fp16")


def test_a_changed_graph_is_not_loaded(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as graph:
        graph.write(b"x")
    with pytest.raises(DamagedArtifact, match=r"model\.onnx: changed"):
        load(folder)
