"""`deploy-attn build`: what it prints, what it leaves, and one clear message for what it cannot do."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.build_text import progress_on_stderr
from deploy_attn.engines.rtx_log import Kernel
from deploy_attn.export.linting.finding import Finding
from tests.deploy_attn.command_line import Cli, files_of

RTX = ("--engine", "tensorrt-rtx", "--target", "rtx-4090")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    request = ExportRequest(
        "cbam",
        shape=(1, 32, 12, 12),
        fp16=True,
        target="rtx-4090",
        dynamic_batch=True,
        output=tmp_path_factory.mktemp("exported") / "cbam",
    )
    return export_artifact(request).folder


@pytest.fixture
def folder(exported: Path, in_folder: Path) -> Path:
    return shutil.copytree(exported, in_folder / "cbam").relative_to(in_folder)


def test_an_engine_is_built_and_shown(cli: Cli, folder: Path) -> None:
    done = cli("build", folder, *RTX)
    assert (done.exit_code, done.stderr) == (0, "")
    (engine,) = folder.glob("*.engine")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("model.fp16.onnx in fp16 for rtx-4090 (compute capability 8.9), TensorRT-RTX ")
    assert ": built in " in lines[0]
    assert lines[1] == "input input takes 1x32x12x12 to 2x32x12x12, tuned for 1x32x12x12"
    assert lines[2].startswith("kernels: ")
    assert "traffic: known at run time only, since sizes are open" in lines[2]
    assert "scratch: " in lines[2]
    assert "weights: " in lines[2]
    assert "/channel_gate/reduce/Conv" in done.stdout
    assert lines[-1] == f"engine: {engine}"


def test_what_is_there_is_said_to_be_there(cli: Cli, folder: Path) -> None:
    cli("build", folder, *RTX)
    before = files_of(folder)
    done = cli("build", folder, *RTX)
    assert done.exit_code == 0
    assert ": built before with the same options\n" in done.stdout
    assert files_of(folder) == before
    assert ": built in " in cli("build", folder, *RTX, "--force").stdout


def test_json_is_the_manifest_and_nothing_else_is_on_stdout(cli: Cli, folder: Path) -> None:
    done = cli("build", folder, *RTX, "--json", "--precision", "fp32")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["passed"], report["cached"]) == (0, True, False)
    stored = json.loads(Path(report["engine_file"]).with_suffix(".json").read_text(encoding="utf-8"))
    assert report["manifest"] == stored
    assert stored["facts"]["layers"]
    assert (stored["target"], stored["key"]["precision"]) == ("rtx-4090", "fp32")


def test_shapes_are_taken_from_the_command_line(cli: Cli, folder: Path) -> None:
    shapes = ("--min", "2x32x12x12", "--opt", "4x32x12x12", "--max", "8x32x12x12")
    done = cli("build", folder, *RTX, *shapes)
    assert "takes 2x32x12x12 to 8x32x12x12, tuned for 4x32x12x12\n" in done.stdout
    assert "note  Parity case normal (1x32x12x12) is outside the profile and cannot be verified." in done.stdout


def test_the_artifact_verifies_and_exports_over_it_as_before(cli: Cli, folder: Path) -> None:
    cli("build", folder, *RTX)
    assert cli("verify", folder).exit_code == 0
    done = cli("export", "se", "--shape", "1x32x8x8", "--output", folder, "--force")
    assert done.exit_code == 0, done.stderr
    assert not list(folder.glob("engine-*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cbam", "--engine", "tensorrt-rtx"], ["Missing option '--target'"]),
        (["cbam", "--target", "rtx-4090"], ["Missing option '--engine'"]),
        (["cbam", "--engine", "tensort", "--target", "rtx-4090"], ["Unknown engine 'tensort'", "Known: tensorrt,"]),
        (["cbam", "--engine", "onnxruntime", "--target", "rtx-4090"], ["has no engine file", "verify DIR"]),
        (["cbam", "--engine", "tensorrt-rtx", "--target", "rtx-409"], ["Unknown target 'rtx-409'"]),
        (["cbam", "--engine", "tensorrt", "--target", "rtx-4090"], ["TensorRT was asked for", "cannot be imported"]),
        (["none", *RTX], ["none is not an artifact"]),
        (["cbam", *RTX, "--precision", "int8"], ["Unknown precision 'int8'"]),
        (["cbam", *RTX, "--max", "4x"], ["--max '4x' is not a shape"]),
        (["cbam", *RTX, "--min", "0x32x12x12"], ["--min '0x32x12x12' is not a shape"]),
        (["cbam", *RTX, "--max", "4x32x24x24"], ["the graph takes ?x32x12x12", "--dynamic-size"]),
        (["cbam", *RTX, "--timing-cache", "cache"], ["--timing-cache is not for tensorrt-rtx"]),
        (["cbam", "--engine", "tensorrt-rtx", "--target", "h100"], ["compute capability 9.0", "builds for 7.5"]),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) and value[0] in ("cbam", "none") else "",
)
def test_a_bad_request_is_one_clear_message_and_leaves_nothing(
    cli: Cli, folder: Path, arguments: list[str], words: list[str]
) -> None:
    before = files_of(folder)
    done = cli("build", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("deploy-attn: ")
    assert done.stderr.count("deploy-attn: ") == 1
    for word in words:
        assert word in done.stderr
    assert files_of(folder) == before


def test_a_damaged_artifact_fails(cli: Cli, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"damaged")
    done = cli("build", folder, *RTX)
    assert done.exit_code == 1
    assert "model.onnx: changed since the export" in done.stderr


def test_what_the_target_would_misread_is_not_built(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy_attn.export.linting import lint as linting

    error = Finding("reduce-axes-input", "/mean", "ReduceMean", "wrong result", "All axes are reduced.", "Lower it.")
    slow = Finding("cumsum-loop", "/sum", "CumSum", "slow", "It is a loop.", "Leave it.")

    class Report:
        findings = (error, slow)

    monkeypatch.setattr(linting, "lint", lambda path, target: Report())
    before = files_of(folder)
    done = cli("build", folder, *RTX)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "reduce-axes-input: /mean (wrong result): All axes are reduced. Lower it." in done.stderr
    assert "cumsum-loop" not in done.stderr
    assert "`deploy-attn lint cbam --target rtx-4090`" in done.stderr
    assert files_of(folder) == before
    Report.findings = (slow,)  # type: ignore[assignment]
    assert cli("build", folder, *RTX).exit_code == 0


def test_an_fp16_engine_without_fp16_is_not_kept(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy_attn.engines import rtx_log

    kernels = rtx_log.kernels

    def single(messages: object) -> tuple[Kernel, ...]:
        found = kernels(messages)  # type: ignore[arg-type]
        return tuple(Kernel(one.name, one.layer_type, 0, 0, one.onnx_nodes, ("Float",), ("Float",)) for one in found)

    monkeypatch.setattr(rtx_log, "kernels", single)
    before = files_of(folder)
    done = cli("build", folder, *RTX)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "built an engine in FP32 from model.fp16.onnx" in done.stderr
    assert files_of(folder) == before


def test_without_a_gpu_the_engine_cannot_be_verified_and_the_reason_is_said(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    cli("build", folder, *RTX)
    done = cli("verify", folder, "--engine", "tensorrt-rtx")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "CUDA" in done.stderr
    assert not (folder / "verdict-tensorrt-rtx.json").exists()


def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_on_stderr() as silent:
        assert silent is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_on_stderr() as shown:
        assert shown is not None
        for step in range(3):
            shown({"phase": "Timing kernels", "step": step, "steps": 2})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Timing kernels" in captured.err


def test_a_corrupt_engine_is_said_before_the_gpu_that_is_missing(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOY_ATTN_CUDART", str(folder / "none.so"))
    assert cli("build", folder, *RTX).exit_code == 0
    assert "none.so" in cli("verify", folder, "--engine", "tensorrt-rtx").stderr
    (engine,) = folder.glob("*.engine")
    engine.write_bytes(engine.read_bytes()[:-1] + b"?")
    done = cli("verify", folder, "--engine", "tensorrt-rtx")
    assert done.exit_code == 2
    assert "sha256 does not match" in done.stderr
