"""Artifacts built and verified with TensorRT: in fakes of its versions over a stub of CUDA, and for real on a GPU.

The fakes compute with onnxruntime through the pointers that they are given, so
that the verdicts are of real numbers.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.engines.build import build_engine
from deploy_attn.engines.builder import BuildOptions
from deploy_attn.engines.parity import verify
from deploy_attn.engines.tensorrt import Place, TensorRtRunner, place
from deploy_attn.engines.verdict import Verdict
from deploy_attn.jetson import tensorrt_engine, tensorrt_module
from deploy_attn.jetson.cudart import VARIABLE, CudaError, Cudart, NoGpu
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.tensorrt_engine import TensorRtEngine
from tests.conftest import Finished
from tests.jetson import stub
from tests.jetson.fake_tensorrt.builder import engine_bytes
from tests.jetson.fake_tensorrt.versions import VERSIONS, module

FAKES = Path(__file__).resolve().parents[1] / "jetson" / "fake_tensorrt"
WEAKLY_TYPED = ("8.0", "8.2", "8.4", "8.5", "8.6", "10")
FP16 = BuildOptions(precision="fp16")
FP32 = BuildOptions(precision="fp32")
TARGET = """
title = "The GPU of a test"
family = "gpu"
engine = "tensorrt"
[onnx]
opset = {{ value = 13, mark = "recalled" }}
ir_version = {{ value = 7, mark = "recalled" }}
[runtime]
tensorrt = {{ value = "{tensorrt}", mark = "recalled" }}
workspace_mib = {{ value = 64, mark = "recalled" }}
[device]
compute_capability = {{ value = "{capability}", mark = "recalled" }}
memory_gib = {{ value = 4, mark = "recalled" }}
"""


class Machine:
    """A machine with a stub of CUDA and a fake TensorRT of any version, in this process and in those it starts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._log = folder / "cuda.log"
        self.cuda = stub.compiled(str(folder))
        self.target = folder / "gpu.toml"
        monkeypatch.setenv(VARIABLE, self.cuda)
        monkeypatch.setenv(stub.LOG, str(self._log))
        self.use_gpu("8.6")

    def use(self, version: str) -> Any:
        """Installs a TensorRT; the module."""
        trt = module(version)
        self._monkeypatch.syspath_prepend(str(FAKES / f"as_{version.replace('.', '_')}"))
        self._monkeypatch.setitem(sys.modules, "tensorrt", trt)
        return trt

    def use_gpu(self, capability: str) -> None:
        self._monkeypatch.setenv(stub.COMPUTE_CAPABILITY, capability)
        self.target.write_text(TARGET.format(tensorrt="8.0", capability=capability), encoding="utf-8")

    def fail(self, calls: str) -> None:
        self._monkeypatch.setenv(stub.FAIL, calls)

    def build(self, folder: Path, *options: BuildOptions) -> None:
        for one in options:
            build_engine(folder, "tensorrt", str(self.target), one)

    @property
    def live(self) -> int:
        return stub.live(self.cuda)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def exported_to(folder: Path, **more: Any) -> Path:
    request = ExportRequest(
        "se", shape=(1, 16, 7, 9), fp16=True, target="jetson-nano", options={"reduction": 4}, output=folder
    )
    return export_artifact(replace(request, **more)).folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_to(tmp_path_factory.mktemp("tensorrt") / "se")


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "se")


@pytest.fixture
def built(folder: Path, machine: Machine) -> Path:
    """An artifact with an FP16 engine for TensorRT 8.2, which is there."""
    machine.use("8.2")
    machine.build(folder, FP16)
    return folder


def table(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [(check.bracket, check.graph, check.case) for check in verdict.checks]


def measured(verdict: Verdict, bracket: str) -> list[Any]:
    return [check.comparison for check in verdict.checks if check.bracket == bracket]


@pytest.fixture(scope="session")
def on_cpu(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    return verify(shutil.copytree(exported, tmp_path_factory.mktemp("cpu") / "se"))


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_gives_the_same_table_and_the_numbers_of_its_graph(
    folder: Path, machine: Machine, on_cpu: Verdict, version: str
) -> None:
    machine.use(version)
    machine.build(folder, FP32, FP16)
    verdict = verify(folder, "tensorrt")
    assert verdict.passed, verdict.as_dict()
    assert json.loads((folder / "verdict-tensorrt.json").read_text(encoding="utf-8")) == verdict.as_dict()
    ways = (("exact", "model.onnx"), ("device", "model.fp16.onnx"))
    assert table(verdict) == [(*way, case) for way in ways for case in ("normal", "far_mean", "large")]
    assert measured(verdict, "exact") == measured(on_cpu, "exact")
    # Weak typing builds FP16 from the FP32 graph, and the fake computes that in FP32.
    half = "exact" if version in WEAKLY_TYPED else "optimistic"
    assert measured(verdict, "device") == measured(on_cpu, half)
    assert {check.bracket: check.tolerance for check in verdict.checks} == {
        "exact": on_cpu.checks[0].tolerance,
        "device": next(check.tolerance for check in on_cpu.checks if check.bracket == "optimistic"),
    }
    assert machine.live == 0


def test_the_conditions_name_engine_gpu_cuda_and_the_engines_hashes(built: Path, machine: Machine) -> None:
    machine.build(built, FP32)
    conditions = verify(built, "tensorrt").conditions
    manifests = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(built.glob("engine-*.json"))]
    assert {name: conditions[name] for name in ("engine", "version", "device", "cuda_runtime", "cuda_driver")} == {
        "engine": "tensorrt",
        "version": "8.2.1.8",
        "device": {"name": "Stub GPU", "compute_capability": "8.6"},
        "cuda_runtime": "12.6",
        "cuda_driver": "12.4",
    }
    assert conditions["engine_sha256"] == {manifest["key"]["precision"]: manifest["sha256"] for manifest in manifests}
    assert set(conditions["engine_sha256"]) == {"fp16", "fp32"}


@pytest.mark.parametrize(("options", "bracket"), [(FP16, "device"), (FP32, "exact")])
def test_of_one_precision_that_was_built_that_one_is_verified(
    folder: Path, machine: Machine, options: BuildOptions, bracket: str
) -> None:
    machine.use("8.5")
    machine.build(folder, options)
    verdict = verify(folder, "tensorrt")
    assert verdict.passed
    assert {check.bracket for check in verdict.checks} == {bracket}


@pytest.mark.parametrize("version", ["8.2", "10"])
def test_open_axes_take_every_case_of_the_artifact(tmp_path: Path, machine: Machine, version: str) -> None:
    folder = exported_to(tmp_path / "open", dynamic_batch=True, dynamic_size=True)
    machine.use(version)
    machine.build(folder, FP16)
    verdict = verify(folder, "tensorrt")
    assert verdict.passed, verdict.as_dict()
    assert len(verdict.checks) >= 3
    assert machine.live == 0


def test_a_version_compatible_engine_is_loaded_by_a_newer_tensorrt(folder: Path, machine: Machine) -> None:
    machine.use("8.6")
    machine.build(folder, replace(FP16, version_compatible=True))
    assert verify(folder, "tensorrt").passed
    machine.use("10")
    assert verify(folder, "tensorrt").passed
    machine.use("8.5")
    with pytest.raises(BadRequest, match="which does not reach"):
        verify(folder, "tensorrt")


# --- what cannot be run


def refusal(cli: Callable[..., Finished], folder: Path) -> str:
    finished = cli("verify", folder, "--engine", "tensorrt")
    assert finished.exit_code == 2
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr
    return " ".join(finished.stderr.split())


def test_without_an_engine_it_says_what_to_run(cli: Callable[..., Finished], folder: Path, machine: Machine) -> None:
    machine.use("8.2")
    message = refusal(cli, folder)
    assert "has no engine for tensorrt" in message
    assert "deploy-attn build" in message
    assert "--engine tensorrt --target" in message


def test_a_corrupt_engine_is_never_loaded(
    cli: Callable[..., Finished], built: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[bytes] = []
    monkeypatch.setattr(
        sys.modules["tensorrt"].Runtime, "deserialize_cuda_engine", lambda runtime, content: loaded.append(content)
    )
    file = next(built.glob("engine-*.engine"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert "sha256 does not match" in refusal(cli, built)
    assert loaded == []


def test_an_engine_of_another_tensorrt_is_refused_with_both_versions(
    cli: Callable[..., Finished], built: Path, machine: Machine
) -> None:
    machine.use("10")
    message = refusal(cli, built)
    assert "8.2.1.8" in message
    assert "10.3.0" in message


def test_an_engine_of_another_gpu_is_refused_with_both_compute_capabilities(
    cli: Callable[..., Finished], built: Path, machine: Machine
) -> None:
    machine.use_gpu("7.2")
    message = refusal(cli, built)
    assert "built for compute capability 8.6" in message
    assert "this GPU is 7.2" in message


def test_what_tensorrt_itself_refuses_is_told_with_its_words(
    cli: Callable[..., Finished], built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["tensorrt"].Runtime, "_refusal", lambda runtime, header: "Platform mismatch")
    message = refusal(cli, built)
    assert "TensorRT 8.2.1.8 on compute capability 8.6 cannot load this engine" in message
    assert "Platform mismatch" in message


def test_without_a_gpu_it_says_so(cli: Callable[..., Finished], built: Path, machine: Machine) -> None:
    machine.fail("cudaGetDeviceProperties=35")
    assert "No CUDA driver or no GPU" in refusal(cli, built)
    with pytest.raises(NoGpu):
        verify(built, "tensorrt")


def test_without_tensorrt_it_says_so(
    cli: Callable[..., Finished], built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "TensorRT was asked for and cannot be imported" in refusal(cli, built)


def test_without_the_cuda_runtime_it_says_so(
    cli: Callable[..., Finished], built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/libcudart.so")
    assert "/nowhere/libcudart.so" in refusal(cli, built)


def test_too_little_memory_for_a_context_is_told_before_any_graph_is_judged(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sys.modules["tensorrt"].ICudaEngine
    monkeypatch.setattr(engine, "create_execution_context", lambda engine: None)
    with pytest.raises(DeployAttnError, match="could not make room"):
        verify(built, "tensorrt")


def test_a_fault_while_it_runs_is_a_finding_and_named_as_what_it_was(built: Path, machine: Machine) -> None:
    machine.fail("cudaStreamSynchronize=700 cudaFree=700 cudaStreamDestroy=700")
    verdict = verify(built, "tensorrt")
    assert not verdict.passed
    assert [check.error for check in verdict.checks] == [
        "the engine refused the graph: cudaStreamSynchronize failed with CUDA error 700 "
        "(an illegal memory access was encountered)"
    ]
    assert verdict.conditions["device"]["name"] == "Stub GPU"


# --- the runner alone


@dataclass(frozen=True)
class Counted:
    """y = x + x over int64, as a graph and as the engine that TensorRT before 9 makes of it, or a later one."""

    content: bytes
    dtype: str

    @classmethod
    def of(cls, trt: Any, engine_type: str) -> Counted:
        shape = [2, 3]
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "x"], ["y"], "add")],
            "counted",
            [helper.make_tensor_value_info("x", TensorProto.INT64, shape)],
            [helper.make_tensor_value_info("y", TensorProto.INT64, shape)],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
        io = [
            {"name": name, "mode": mode, "dtype": engine_type, "shape": shape}
            for name, mode in (("x", "INPUT"), ("y", "OUTPUT"))
        ]
        return cls(engine_bytes({"version": trt.__version__, "io": io}, model.SerializeToString()), engine_type.lower())


@pytest.mark.parametrize(("version", "engine_type"), [("8.2", "INT32"), ("8.6", "INT32"), ("10", "INT64")])
def test_an_int64_input_reaches_an_engine_of_either_width(machine: Machine, version: str, engine_type: str) -> None:
    counted = Counted.of(machine.use(version), engine_type)
    values = np.arange(6, dtype=np.int64).reshape(2, 3) - 3
    with TensorRtRunner(counted.content, place("tensorrt", "tensorrt")) as runner:
        outputs = runner.infer({"x": values})
        assert outputs["y"].dtype == counted.dtype
        assert outputs["y"].tolist() == (values * 2).tolist()
        if engine_type == "INT32":
            with pytest.raises(BadRequest, match="holds values from"):
                runner.infer({"x": values + 2**31})
    assert machine.live == 0


def test_the_runner_checks_what_it_is_fed_and_lives_once_for_each_with(machine: Machine) -> None:
    counted = Counted.of(machine.use("8.2"), "INT32")
    runner = TensorRtRunner(counted.content, place("tensorrt", "tensorrt"))
    with pytest.raises(RuntimeError, match="not active"):
        runner.infer({})
    for _ in range(2):
        with runner, pytest.raises(BadRequest, match="'x' takes int32 of shape 2x3, got float32 of shape 2x3"):
            runner.infer({"x": np.zeros((2, 3), np.float32)})
        assert machine.live == 0
    assert set(runner.conditions()["engine_sha256"]) == {"engine"}


def test_an_error_of_freeing_alone_is_not_swallowed(machine: Machine) -> None:
    counted = Counted.of(machine.use("8.2"), "INT32")
    runner = TensorRtRunner(counted.content, place("tensorrt", "tensorrt"))
    with pytest.raises(CudaError, match="cudaStreamDestroy"), runner:
        machine.fail("cudaStreamDestroy=700")


# --- the real thing


def test_what_is_asked_of_engines_and_contexts_by_name_is_there_in_tensorrt_rtx() -> None:
    """It has the interface of TensorRT 10 and 11, and comes without a GPU."""
    rtx = tensorrt_module.load(tensorrt_module.RTX)
    tree = ast.parse(Path(tensorrt_engine.__file__).read_text(encoding="utf-8"))
    by_name = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "_Tensors")
    asked = {
        (node.value.attr, node.attr)
        for node in ast.walk(by_name)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)
    }
    homes = {"_engine": rtx.ICudaEngine, "_context": rtx.IExecutionContext}
    found = {(home, name) for home, name in asked if home in homes}
    assert ("_context", "execute_async_v3") in found
    assert [pair for pair in sorted(found) if not hasattr(homes[pair[0]], pair[1])] == []


def test_tensorrt_rtx_itself_refuses_what_is_no_engine(machine: Machine) -> None:
    rtx = tensorrt_module.load(tensorrt_module.RTX)
    with (
        pytest.raises(BadRequest, match=r"TensorRT-RTX .* cannot load this engine of 100 bytes: .*magicTag"),
        TensorRtEngine(b"\0" * 100, rtx, Cudart()),
    ):
        pass
    assert machine.live == 0


def places() -> list[Place | None]:
    """None, which is a fake, and TensorRT on a GPU where this machine has both: elsewhere fakes are the whole test."""
    if importlib.util.find_spec("tensorrt") is None:
        return [None]
    try:
        Cudart().compute_capability()  # first, since importing TensorRT takes seconds
        return [None, place("tensorrt", "tensorrt")]
    except DeployAttnError:
        return [None]


@pytest.mark.parametrize("real", places(), ids=lambda real: "fake" if real is None else "gpu")
def test_a_gpu_holds_both_precisions_to_the_reference(
    real: Place | None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if real is None:
        Machine(tmp_path, monkeypatch).use("11")
    here = real or place("tensorrt", "tensorrt")
    version = ".".join(here.version.split(".")[:3])
    target = tmp_path / "here.toml"
    target.write_text(TARGET.format(tensorrt=version, capability=here.compute_capability), encoding="utf-8")
    for options in (FP32, FP16):
        build_engine(folder, "tensorrt", str(target), options)
    verdict = verify(folder, "tensorrt")
    assert verdict.passed, verdict.as_dict()
    assert {check.bracket for check in verdict.checks} == {"exact", "device"}
