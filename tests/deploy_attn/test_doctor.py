"""doctor: what it finds, and the two onnxruntimes that must not meet."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy_attn.doctor import examine
from tests.conftest import Finished


def test_a_healthy_machine(cli: Callable[..., Finished]) -> None:
    done = cli("doctor")
    assert done.exit_code == 0, done.stdout
    for word in ("Python", "torch", "onnx", "onnxruntime providers", "CPUExecutionProvider", "GPU", "TensorRT"):
        assert word in done.stdout
    report = json.loads(cli("doctor", "--json").stdout)
    assert report["healthy"] is True
    assert report["found"]["Python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert report["jobs"][0]["missing"] == []


def fake_distribution(folder: Path, name: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.99.0\n", encoding="utf-8")


@pytest.mark.parametrize("other", ["onnxruntime-gpu", "onnxruntime-directml"])
def test_two_onnxruntimes_are_a_problem_with_a_remedy(tmp_path: Path, other: str) -> None:
    fake_distribution(tmp_path, other)
    code = f"import sys; sys.path.append({str(tmp_path)!r})\nfrom deploy_attn.cli import main\nmain(['doctor'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"onnxruntime and {other} are installed together" in done.stdout
    assert f"pip uninstall -y onnxruntime {other}" in done.stdout


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy_attn import doctor

    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("torch", "onnxruntime") else "1.0")
    report = examine()
    assert not report.passed
    missing = {job.name: " ".join(job.missing) for job in report.jobs}
    assert "pip install torch" in missing["export to ONNX, verified on the CPU"]


def test_a_runtime_that_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = examine()
    assert any("does not load" in problem for problem in report.problems)
    assert not report.passed
