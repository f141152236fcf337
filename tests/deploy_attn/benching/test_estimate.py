"""The floor of an artifact beside what boards of the target measured, as a person and a program read it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy_attn.benching import estimate as estimating
from deploy_attn.benching.estimate import estimate_artifact
from deploy_attn.benching.estimate_text import show_estimates
from deploy_attn.engines.latency import runners
from deploy_attn.engines.latency.machine import cpu_name
from deploy_attn.engines.machine_limits import Limits
from deploy_attn.engines.settings import Settings
from deploy_attn.exporting import export_artifact
from deploy_attn.jetson.artifact import SELF_HASH, read_manifest
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.request import ExportRequest
from tests.deploy_attn.command_line import Cli
from tests.deploy_attn.html_report.samples import comparison, write_bench
from tests.engines.latency.fakes import LIMITS


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


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """This machine's are known; what they were asked for, bytes and threads."""
    asked: list[tuple[int, int]] = []

    def measured(size: int, threads: int) -> Limits:
        asked.append((size, threads))
        return replace(LIMITS, threads=threads, disturbed="other processes used 1.5 cores")

    monkeypatch.setattr(estimating, "measured_limits", measured)
    return asked


def bench_here(artifact: Path, engine: str = "onnxruntime", **conditions: Any) -> None:
    """A kept comparison of both precisions on this processor, on one thread, in 0.2 ms."""
    told = {"threads": 1, "cache": "hot", "machine": {"cpu": cpu_name()}, **conditions}
    both = (comparison(precision, "naive", 1.5, 0.2, conditions=told) for precision in ("fp32", "fp16"))
    write_bench(artifact, *both, engine=engine)


def test_a_cpu_is_this_machine_whose_limits_are_measured_and_marked(
    artifact: Path, limits: list[tuple[int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    bench_here(artifact)
    found = estimate_artifact(artifact, "onnxruntime-cpu")
    for one in found.estimates:
        assert one.memory_ms == pytest.approx(one.work.traffic.least / 140e6)
        assert one.facts["device.bandwidth_gb_per_s"].mark == "measured here"
    assert limits == [(max(one.work.traffic.least for one in found.estimates), 1)]
    assert [(one.precision, one.engine, one.times.n) for one in found.measured] == [
        ("fp32", "onnxruntime", 60),
        ("fp16", "onnxruntime", 60),
    ]
    show_estimates(found)
    text = capsys.readouterr().out
    assert f"({cpu_name()}, 1 thread, hot caches)" in text
    assert "an estimate, bandwidth and peaks were measured here just now" in text
    assert "used: bandwidth in GB/s: 140 (measured here; a copy, 1.6 MB in hot caches, 1 thread)" in text
    assert "TFLOPS: 0.24 (measured here; a product, 1 thread)" in text
    assert "hot caches against naive: 0.2" in text
    assert "other processes used 1.5 cores meanwhile: at its best this machine may do more" in text
    assert "times may be below the floor" not in text
    document = found.as_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["limits"][0]["hot_gb_per_s"] == 140.0


@pytest.mark.usefixtures("limits")
def test_with_cold_caches_the_floor_is_that_of_memory(artifact: Path) -> None:
    hot, cold = (estimate_artifact(artifact, "onnxruntime-cpu", "fp32", cold=one).estimates[0] for one in (False, True))
    assert cold.memory_ms == pytest.approx(hot.memory_ms * 140 / 40)
    assert cold.compute_ms == hot.compute_ms


@pytest.mark.parametrize(
    ("options", "conditions", "reason"),
    [
        ({}, {"threads": 2}, "it is of 2 thread(s) and the floor of 1, which --threads decides"),
        ({"threads": 2}, {}, "it is of 1 thread(s) and the floor of 2"),
        ({}, {"cache": "cold"}, "it is of cold caches, which --cold decides"),
        ({"cold": True}, {}, "it is of hot caches"),
        ({}, {"machine": {"cpu": "Another CPU"}}, "it is of Another CPU, and this is"),
        ({}, {"machine": None}, "it is of an unknown processor"),
        ({}, {"engine": "tensorrt"}, "it is of engine tensorrt, which computes on no CPU"),
        ({}, {"engine": "no such"}, "it is of engine no such"),
    ],
)
def test_times_of_another_machine_or_regime_are_set_apart_with_the_reason(
    artifact: Path,
    options: dict[str, Any],
    conditions: dict[str, Any],
    reason: str,
    limits: list[tuple[int, int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench_here(artifact, **conditions)
    found = estimate_artifact(artifact, "onnxruntime-cpu", **options)
    assert [count for _, count in limits] == [options.get("threads", 1)]
    assert found.measured == ()
    assert len(found.set_apart) == 1
    assert reason in found.set_apart[0]
    show_estimates(found)
    assert "`deploy-attn bench" in capsys.readouterr().out


@pytest.mark.usefixtures("limits")
def test_a_bench_of_another_export_is_set_apart(artifact: Path) -> None:
    bench_here(artifact)
    file = artifact / "bench-onnxruntime.json"
    file.write_text(file.read_text().replace(read_manifest(str(artifact))[SELF_HASH], "0" * 64))
    assert "it is of another artifact" in estimate_artifact(artifact, "onnxruntime-cpu").set_apart[0]


def test_tuned_threads_are_those_of_the_floor(
    artifact: Path, limits: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = {"fp32": Settings(intra_op_threads=2)}
    monkeypatch.setattr(runners, "stored_settings", lambda _: tuned)
    bench_here(artifact)
    found = estimate_artifact(artifact, "onnxruntime-cpu")
    assert sorted(count for _, count in limits) == [1, 2]
    assert [one.precision for one in found.measured] == ["fp16"]
    threads = {one.precision: one.title.rpartition(cpu_name())[2] for one in found.estimates}
    assert threads == {"fp32": ", 2 threads, hot caches", "fp16": ", 1 thread, hot caches"}


@pytest.mark.parametrize("options", [{"threads": 1}, {"cold": True}])
def test_what_is_this_machines_is_refused_for_a_board(exported: Path, options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="--threads and --cold are of --target onnxruntime-cpu"):
        estimate_artifact(exported, "jetson-nano", **options)


def test_nothing_is_measured_for_a_precision_that_there_is_none_of(
    exported: Path, limits: list[tuple[int, int]]
) -> None:
    with pytest.raises(BadRequest, match="no graph in int8"):
        estimate_artifact(exported, "onnxruntime-cpu", "int8")
    assert limits == []


@pytest.mark.parametrize("flag", [("--pairs", "3"), ("--seconds", "2"), ("--force",), ("--source", "net.py")])
def test_what_an_estimate_would_not_heed_is_refused(exported: Path, flag: tuple[str, ...], cli: Cli) -> None:
    done = cli("bench", exported, "--estimate", "--target", "jetson-nano", *flag)
    assert (done.exit_code, done.stdout) == (2, "")
    assert flag[0] in done.stderr


def test_the_document_is_json(artifact: Path) -> None:
    write_verdict(artifact)
    found = estimate_artifact(artifact, "jetson-nano").as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [one["precision"] for one in found["estimates"]] == ["fp32", "fp16"]
    assert found["measured"][0]["times"]["median"] == 0.5
