"""The GPUs of a machine: as nvidia-smi tells, or as CUDA does where there is none of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy_attn.doctor import examine
from deploy_attn.engines.gpus import gpus
from deploy_attn.jetson.cudart import VARIABLE
from tests.jetson import stub


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only one on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    return tmp_path


def write_tool(folder: Path, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    tool.chmod(0o755)


def test_each_gpu_is_a_line_with_the_fields_that_were_asked_for(folder: Path) -> None:
    write_tool(folder, 'echo "One, $1"; echo; echo " Two "')
    assert gpus("name", "driver_version") == ["One, --query-gpu=name,driver_version", "Two"]


@pytest.mark.parametrize("script", ["echo 'No devices were found'; exit 6", "kill -9 $$"])
def test_a_driver_that_does_not_work_is_no_gpu(folder: Path, script: str) -> None:
    write_tool(folder, script)
    assert gpus("name") == []


def test_a_machine_with_neither_has_none(folder: Path) -> None:
    assert gpus("name") == []


def test_a_board_without_nvidia_smi_tells_its_gpu_by_cuda(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # for the compiler
    library = stub.compiled(str(folder))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv(VARIABLE, library)
    monkeypatch.setenv(stub.COMPUTE_CAPABILITY, "8.7")
    assert gpus("name") == ["Stub GPU, 8.7"]
    report = examine()
    assert report.found["GPU"] == "Stub GPU, 8.7"
    assert not any("an NVIDIA GPU" in missing for job in report.jobs for missing in job.missing)
