"""doctor: what it finds, and the two onnxruntimes that must not meet."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy_attn.doctor import DoctorReport, examine
from tests.conftest import Finished

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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


@pytest.mark.parametrize(
    ("absent", "job", "command"),
    [
        ((), "a page of artifacts", ""),
        (("jinja2",), "a page of artifacts", "pip install 'deploy-attn[report]' (jinja2)"),
        (("jinja2", "matplotlib"), "a page", "pip install 'deploy-attn[report]' (jinja2, matplotlib)"),
        (("distributed",), "a sweep on several machines", "pip install 'deploy-attn[sweep]' (distributed)"),
        (("openvino",), "bench against", "pip install 'deploy-attn[peers]' (openvino)"),
        (("asyncssh",), "boards over SSH", "pip install 'deploy-attn[remote]' (asyncssh)"),
    ],
)
def test_an_extra_that_is_absent_is_named_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, absent: tuple[str, ...], job: str, command: str
) -> None:
    from deploy_attn import doctor

    own = {"onnxruntime-gpu": None, "onnxruntime-directml": None, **dict.fromkeys(absent)}
    monkeypatch.setattr(doctor, "_version", lambda name: own.get(name, "1.0" if "onnxruntime-" not in name else None))
    monkeypatch.setattr(doctor, "_tensorrts", lambda: ({}, []))
    report = examine()
    assert missing_for(report, job) == command
    assert report.passed
    assert {name: report.found.get(name) for name in absent} == dict.fromkeys(absent)


def test_every_extra_of_the_package_is_told_with_all_that_it_adds() -> None:
    from deploy_attn import doctor

    told = {name for _, names in doctor._EXTRAS.values() for name in names}
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    wanted = {extra: names for extra, names in extras["optional-dependencies"].items() if extra in doctor._EXTRAS}
    assert told == {name.partition(">")[0] for names in wanted.values() for name in names}
    assert set(extras["optional-dependencies"]) - set(wanted) == {"cpu", "gpu", "rtx", "dev"}


def test_a_missing_compiler_is_named_and_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    report = examine()
    missing = {job.name: " ".join(job.missing) for job in report.jobs}
    assert "apt install gcc" in missing["fused operators for onnxruntime on the CPU"]
    assert report.passed


def test_a_runtime_that_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = examine()
    assert any("does not load" in problem for problem in report.problems)
    assert not report.passed


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10: cannot open"),
        ("import os; os.abort()", "importing it ends Python: Aborted"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "importing it ends Python: Segmentation fault"),
        ("import os; os._exit(3)", "importing it ends Python with code 3"),
        ("import time; time.sleep(60)", "importing it takes more than 2 s"),
        ("", "has no attribute '__version__'"),
    ],
)
def test_a_tensorrt_that_does_not_load_is_a_problem_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, reason: str
) -> None:
    from deploy_attn import doctor

    (tmp_path / "tensorrt.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "_IMPORT_SECONDS", 2)
    report = examine()
    assert not report.passed
    (problem,) = report.problems
    assert problem.startswith("tensorrt is installed but does not load (")
    assert reason in problem
    assert "pip install 'deploy-attn[gpu]' (tensorrt)" in missing_for(report, "build and run TensorRT engines")


def test_a_tensorrt_that_loads_is_found_even_without_a_package_s_metadata(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text("__version__ = '8.5.2'\nprint('it talks')\n", encoding="utf-8")
    (tmp_path / "types.py").write_text("raise SystemExit('in the way')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    report = examine()
    assert report.problems == ()
    assert "tensorrt 8.5.2" in report.found["TensorRT"]
    assert "tensorrt" not in missing_for(report, "build and run TensorRT engines")


def test_a_folder_that_happens_to_be_called_tensorrt_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    report = examine()
    assert report.problems == ()
    assert "tensorrt " not in report.found["TensorRT"]


def missing_for(report: DoctorReport, job: str) -> str:
    return "; ".join(next(each.missing for each in report.jobs if each.name.startswith(job)))


def test_lint_and_rtx_builds_need_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy_attn import doctor

    monkeypatch.setattr(doctor, "gpus", lambda *fields: [])
    report = examine()
    assert missing_for(report, "lint") == missing_for(report, "build TensorRT-RTX") == ""
    for job in ("run TensorRT-RTX", "build and run TensorRT", "onnxruntime's CUDA", "onnxruntime's TensorRT"):
        assert "an NVIDIA GPU with its driver" in missing_for(report, job)
