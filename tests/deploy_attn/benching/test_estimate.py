"""The floor of an artifact beside what boards of the target measured, as a person and a program read it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deploy_attn.benching.estimate import estimate_artifact
from deploy_attn.benching.estimate_text import show_estimates
from deploy_attn.exporting import export_artifact
from deploy_attn.jetson.artifact import SELF_HASH, read_manifest
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.request import ExportRequest


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("estimating") / "eca"
    export_artifact(ExportRequest("eca", shape=(1, 16, 8, 8), fp16=True, target="jetson-nano", output=folder))
    return folder


@pytest.fixture
def artifact(exported: Path, tmp_path: Path) -> Path:
    """A copy of it, for verdicts of the test's own."""
    return shutil.copytree(exported, tmp_path / "eca")


def write_verdict(artifact: Path, name: str = "verdict-nano-tensorrt.json", **changed: Any) -> None:
    """A board's verdict that failed its checks but has times, which is enough here."""
    times = {"median_ms": 0.5, "p90_ms": 0.6, "p99_ms": 0.7, "n": 50, "loop": 1}
    document = {
        "schema_version": 1,
        "engine": "tensorrt",
        "passed": False,
        "checks": [],
        "problems": [],
        "warnings": [],
        "conditions": {"version": "8.2.1", "artifact_sha256": read_manifest(str(artifact))[SELF_HASH]},
        "target": "jetson-nano",
        "board": {"module": "NVIDIA Jetson Nano", "compute_capability": "5.3"},
        "timing": {"fp16": {"compute": times, "end_to_end": None, "notes": []}},
    }
    (artifact / name).write_text(json.dumps({**document, **changed}))


def test_a_boards_times_stand_beside_the_floor_of_their_precision(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_verdict(artifact)
    found = estimate_artifact(artifact, "jetson-nano")
    assert [(one.where, one.precision, one.kind, one.times.median) for one in found.measured] == [
        ("NVIDIA Jetson Nano", "fp16", "compute", 0.5)
    ]
    show_estimates(found)
    text = capsys.readouterr().out
    floor = next(one for one in found.estimates if one.precision == "fp16").floor_ms
    assert f"0.5 ms, p90 0.6 (n 50), {0.5 / floor:.2g} times the floor" in text
    assert "an estimate, nothing was run" in text
    assert "25.6 (third party)" in text


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"target": "jetson-tx2"}, "it is of a run for jetson-tx2, and not for jetson-nano"),
        ({"target": None}, "it is of a run for no target"),
        ({"board": {"module": "NVIDIA Jetson TX2", "compute_capability": "6.2"}}, "has compute capability 6.2"),
        ({"board": {"module": None, "compute_capability": None}}, "has compute capability unknown"),
        ({"board": None}, "has compute capability unknown"),
        ({"conditions": {"artifact_sha256": "0" * 64}}, "it is of another artifact"),
        ({"conditions": {}}, "it is of another artifact"),
    ],
)
def test_times_from_elsewhere_are_set_apart_with_the_reason(
    artifact: Path, changed: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_verdict(artifact, **changed)
    found = estimate_artifact(artifact, "jetson-nano")
    assert found.measured == ()
    assert reason in found.set_apart[0]
    show_estimates(found)
    text = capsys.readouterr().out
    assert "measured: nothing" in text
    assert reason in text


def test_a_verdict_without_times_is_passed_over(exported: Path) -> None:
    assert list(exported.glob("verdict-onnxruntime.json"))
    found = estimate_artifact(exported, "jetson-nano")
    assert (found.measured, found.set_apart) == ((), ())


def test_only_the_precision_that_is_asked_for_is_estimated(artifact: Path) -> None:
    write_verdict(artifact)
    found = estimate_artifact(artifact, "jetson-nano", "fp32")
    assert [one.precision for one in found.estimates] == ["fp32"]
    assert found.measured == ()


def test_a_file_that_is_no_verdict_is_refused_by_name(artifact: Path) -> None:
    (artifact / "verdict-nano.json").write_text("[]")
    with pytest.raises(BadRequest, match="verdict-nano"):
        estimate_artifact(artifact, "jetson-nano")


@pytest.mark.parametrize(
    ("target", "message"), [("jetson-nanoo", "Unknown target"), ("nowhere.toml", "cannot be read")]
)
def test_a_target_that_is_none_is_refused(exported: Path, target: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        estimate_artifact(exported, target)


def test_a_folder_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="not an artifact"):
        estimate_artifact(tmp_path, "jetson-nano")


def test_text_of_a_verdict_cannot_command_the_terminal(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_verdict(artifact, board={"module": "[red]Nano\x1b[2J", "compute_capability": "5.3"})
    show_estimates(estimate_artifact(artifact, "jetson-nano"))
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "[red]Nano" in text


def test_the_document_is_json(artifact: Path) -> None:
    write_verdict(artifact)
    found = estimate_artifact(artifact, "jetson-nano").as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [one["precision"] for one in found["estimates"]] == ["fp32", "fp16"]
    assert found["measured"][0]["times"]["median"] == 0.5
