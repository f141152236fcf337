"""onnxruntime: runs graphs where it was asked to or says why not, tells its conditions, and never needs torch.

No GPU is needed: the providers of a GPU are played by a module that has just
what `fake_onnxruntime` writes down, and computes on the CPU.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from deploy_attn import ExportRequest, export_artifact, verify
from deploy_attn.engines.onnxruntime import CPU, CUDA, TENSORRT, OnnxRuntimeRunner, Settings
from deploy_attn.jetson.errors import BadRequest

Array = np.ndarray[Any, Any]

ROOT = Path(__file__).resolve().parents[2]


def one_node(operator: str, kind: int) -> bytes:
    """A graph of one node on a vector of two."""
    x, y = (helper.make_tensor_value_info(name, kind, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], "node")], "graph", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("optimise", [True, False])
def test_a_tiny_graph_runs(optimise: bool) -> None:
    with OnnxRuntimeRunner(one_node("Neg", TensorProto.FLOAT), optimise) as runner:
        outputs = runner.infer({"x": np.array([1.5, -2.0], dtype=np.float32)})
    np.testing.assert_array_equal(outputs["y"], np.array([-1.5, 2.0], dtype=np.float32), strict=True)


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float16", "float64", "bool", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"],
)
def test_an_input_of_any_number_type_is_taken_as_it_is(dtype: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = np.array([0, 1], dtype=dtype)
    with OnnxRuntimeRunner(one_node("Identity", kind)) as runner:
        np.testing.assert_array_equal(runner.infer({"x": x})["y"], x, strict=True)
        with pytest.raises(BadRequest, match=f"takes {dtype} of shape 2, got complex64 of shape 2"):
            runner.infer({"x": x.astype(np.complex64)})


@pytest.mark.parametrize(("optimise", "level"), [(True, "all"), (False, "off")])
def test_the_conditions_are_json_and_known_before_anything_is_loaded(optimise: bool, level: str) -> None:
    conditions = OnnxRuntimeRunner(b"", optimise).conditions()
    assert json.loads(json.dumps(conditions, allow_nan=False)) == conditions
    assert conditions == {
        "engine": "onnxruntime",
        "version": onnxruntime.__version__,
        "provider": "CPUExecutionProvider",
        "provider_options": {},
        "intra_op_threads": 0,
        "inter_op_threads": 0,
        "optimisation": level,
        "denormals": "kept",
        "spinning": True,
        "device": "cpu",
    }


@pytest.mark.parametrize(
    ("level", "used_level"),
    [
        ("all", "ORT_ENABLE_ALL"),
        ("extended", "ORT_ENABLE_EXTENDED"),
        ("basic", "ORT_ENABLE_BASIC"),
        ("off", "ORT_DISABLE_ALL"),
    ],
)
def test_the_settings_that_are_asked_for_are_used_and_told(
    level: str, used_level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Any] = []

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, content: bytes, options: Any, **more: Any) -> None:
            spinning = options.get_session_config_entry("session.intra_op.allow_spinning")
            used.append((options.intra_op_num_threads, options.inter_op_num_threads, spinning))
            used.append(options.graph_optimization_level)
            super().__init__(content, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    settings = Settings(CPU, 3, 2, level=level, spinning=False)
    runner = OnnxRuntimeRunner(one_node("Neg", TensorProto.FLOAT), settings=settings)
    with runner:
        runner.infer({"x": np.ones(2, dtype=np.float32)})
    assert used == [(3, 2, "0"), getattr(onnxruntime.GraphOptimizationLevel, used_level)]
    told = runner.conditions()
    assert (told["intra_op_threads"], told["inter_op_threads"]) == (3, 2)
    assert (told["optimisation"], told["spinning"]) == (level, False)


def test_a_level_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(BadRequest, match=r"'fastest'\. It has all, extended, basic, off"):
        Settings(level="fastest")


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_gpu_s_provider_computes_what_the_cpu_does_or_says_why_it_cannot(provider: str) -> None:
    """With a GPU and its build of onnxruntime this runs there; elsewhere it holds the refusal."""
    runner = OnnxRuntimeRunner(one_node("Neg", TensorProto.FLOAT), settings=Settings(provider))
    try:
        with runner:
            outputs = runner.infer({"x": np.array([1.5, -2.0], dtype=np.float32)})
    except BadRequest as refusal:
        assert str(refusal).startswith(f"{provider} was asked for")
    else:
        np.testing.assert_array_equal(outputs["y"], np.array([-1.5, 2.0], dtype=np.float32), strict=True)


def test_two_runs_of_one_session_do_not_share_their_outputs() -> None:
    with OnnxRuntimeRunner(one_node("Neg", TensorProto.FLOAT)) as runner:
        first = runner.infer({"x": np.ones(2, dtype=np.float32)})["y"]
        runner.infer({"x": np.zeros(2, dtype=np.float32)})
    np.testing.assert_array_equal(first, [-1.0, -1.0])


def test_a_refused_graph_raises_says_why_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    runner = OnnxRuntimeRunner(one_node("NoSuchOperator", TensorProto.FLOAT))
    with pytest.raises(Exception, match="NoSuchOperator"), runner:
        pytest.fail("the graph was accepted")
    with pytest.raises(RuntimeError, match="not active"):
        runner.infer({"x": np.ones(2, dtype=np.float32)})
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_fails_while_it_runs_raises_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    index = helper.make_tensor_value_info("index", TensorProto.INT64, [2])
    graph = helper.make_graph([helper.make_node("Gather", ["x", "index"], ["y"], "pick")], "graph", [x, index], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    with OnnxRuntimeRunner(model.SerializeToString()) as runner:
        with pytest.raises(Exception, match="pick"):
            runner.infer({"x": np.ones(2, dtype=np.float32), "index": np.array([0, 5])})
        runner.infer({"x": np.ones(2, dtype=np.float32), "index": np.array([0, 1])})
    assert capfd.readouterr() == ("", "")


def test_without_onnxruntime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    runner = OnnxRuntimeRunner(one_node("Neg", TensorProto.FLOAT))
    with pytest.raises(BadRequest, match=r"pip install 'deploy-attn\[cpu\]'") as raised:
        runner.conditions()
    assert raised.value.exit_code == 2
    with pytest.raises(BadRequest, match=r"Engine onnxruntime was asked for and cannot be imported"), runner:
        pytest.fail("a missing engine was entered")


@dataclass
class Fake:
    """A build of onnxruntime with the providers of a GPU, and what happened to it.

    Attributes:
        available: the providers of this build.
        starts: the providers that start here; a session is made without the others, as onnxruntime does it.
        log: what native code writes to stderr while a session is made.
        raises: what making a session raises.
    """

    available: tuple[str, ...] = (TENSORRT, CUDA, CPU)
    starts: tuple[str, ...] = (TENSORRT, CUDA)
    log: str = ""
    raises: Exception | None = None
    sessions: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def module(self) -> SimpleNamespace:
        levels = SimpleNamespace(ORT_ENABLE_ALL="all", ORT_DISABLE_ALL="none")
        return SimpleNamespace(
            __version__="1.99.0",
            cuda_version="13.0",
            get_available_providers=lambda: list(self.available),
            GraphOptimizationLevel=levels,
            SessionOptions=FakeOptions,
            InferenceSession=self.session,
            OrtValue=SimpleNamespace(ortvalue_from_numpy=self.value),
            preload_dlls=lambda: print("Failed to load libcublas.so.13"),  # noqa: T201 - as the real one does
        )

    def session(
        self, content: bytes, options: FakeOptions, providers: Sequence[tuple[str, Mapping[str, str]]], **more: int
    ) -> FakeSession:
        with contextlib.suppress(OSError):  # native code goes on where stderr is closed
            os.write(2, self.log.encode())
        if self.raises is not None:
            raise self.raises
        name, given = providers[0]
        assert len(providers) == 1
        made = {"provider": name, "options": dict(given), **more, **options.entries}
        self.sessions.append(made)
        return FakeSession(self, content, [*(each for each in [name] if each in self.starts), CPU])

    def value(self, array: Array, device: str, device_id: int) -> tuple[str, Array]:
        assert array.flags.c_contiguous
        self.calls.append(f"{array.dtype} of {array.shape} to {device}:{device_id}")
        return device, array


class FakeOptions:
    def __init__(self) -> None:
        self.log_severity_level = 2
        self.intra_op_num_threads = self.inter_op_num_threads = 0
        self.graph_optimization_level = "all"
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value


class FakeSession:
    """Computes with the real runtime, and only over a binding."""

    def __init__(self, fake: Fake, content: bytes, providers: list[str]) -> None:
        self._fake = fake
        self._providers = providers
        self._real = onnxruntime.InferenceSession(content, providers=[CPU])
        self.get_inputs, self.get_outputs = self._real.get_inputs, self._real.get_outputs

    def get_providers(self) -> list[str]:
        return self._providers

    def disable_fallback(self) -> None:
        self._fake.calls.append("no fallback")

    def io_binding(self) -> FakeBinding:
        return FakeBinding(self._fake)

    def run_with_iobinding(self, binding: FakeBinding) -> None:
        self._fake.calls.append("run")
        assert binding.ready
        binding.results = self._real.run(binding.outputs, binding.inputs)


class FakeBinding:
    def __init__(self, fake: Fake) -> None:
        self._fake = fake
        self.inputs: dict[str, Array] = {}
        self.outputs: list[str] = []
        self.results: list[Array] = []
        self.ready = self.done = False

    def bind_ortvalue_input(self, name: str, value: tuple[str, Array]) -> None:
        assert value[0] == "cuda"
        self.inputs[name] = value[1]

    def bind_output(self, name: str, device: str, device_id: int) -> None:
        self._fake.calls.append(f"{name} to {device}:{device_id}")
        self.outputs.append(name)

    def synchronize_inputs(self) -> None:
        self.ready = True

    def synchronize_outputs(self) -> None:
        self.done = True

    def copy_outputs_to_cpu(self) -> list[Array]:
        assert self.done
        return self.results


Install = Callable[[Fake], Fake]
GPU_PROVIDERS = pytest.mark.parametrize("provider", [CUDA, TENSORRT])


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """Puts a fake build in onnxruntime's place, and the cache of engines where nothing else is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    def put(fake: Fake) -> Fake:
        monkeypatch.setitem(sys.modules, "onnxruntime", fake.module())
        return fake

    return put


def gpu_runner(provider: str, content: bytes | None = None) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(content or one_node("Neg", TensorProto.FLOAT), settings=Settings(provider))


@GPU_PROVIDERS
def test_on_a_gpu_inputs_and_outputs_are_bound_and_no_way_back_to_the_cpu_is_left(
    install: Install, provider: str
) -> None:
    fake = install(Fake())
    strided = np.array([1, 0, 2, 0], dtype=np.float32)[::2]
    with gpu_runner(provider) as runner:
        outputs = runner.infer({"x": strided})
    np.testing.assert_array_equal(outputs["y"], [-1, -2])
    assert fake.calls == ["no fallback", "float32 of (2,) to cuda:0", "y to cuda:0", "run"]
    (made,) = fake.sessions
    assert made["provider"] == provider
    assert made["session.disable_cpu_ep_fallback"] == "1"
    assert made["enable_fallback"] == 0


@GPU_PROVIDERS
def test_a_provider_that_this_build_lacks_says_what_is_there_and_what_to_install(
    install: Install, provider: str
) -> None:
    fake = install(Fake(available=("AzureExecutionProvider", CPU)))
    with pytest.raises(BadRequest) as raised, gpu_runner(provider):
        pytest.fail("a missing provider was entered")
    message = str(raised.value)
    assert message.startswith(f"{provider} was asked for, and the onnxruntime 1.99.0 that is installed has Azure")
    assert "CPUExecutionProvider" in message
    assert "pip install 'deploy-attn[gpu]'" in message
    assert fake.sessions == []


def test_a_cpu_session_may_run_on_the_cpu(install: Install) -> None:
    fake = install(Fake())
    with OnnxRuntimeRunner(one_node("Neg", TensorProto.FLOAT)):
        pass
    assert "session.disable_cpu_ep_fallback" not in fake.sessions[0]


def test_tf32_is_off_on_cuda(install: Install) -> None:
    fake = install(Fake())
    with gpu_runner(CUDA):
        pass
    assert fake.sessions[0]["options"] == {"device_id": "0", "use_tf32": "0"}


def test_graphs_that_differ_only_in_their_weights_share_timings_and_no_engine(install: Install, tmp_path: Path) -> None:
    fake = install(Fake())
    for operator in ("Neg", "Abs", "Neg"):
        with gpu_runner(TENSORRT, one_node(operator, TensorProto.FLOAT)):
            pass
    options = [made["options"] for made in fake.sessions]
    assert options[0] == options[2] != options[1]
    assert {given["trt_timing_cache_path"] for given in options} == {
        str(tmp_path / "cache" / "deploy-attn" / "onnxruntime-1.99.0")
    }
    for given in options:
        assert (given["trt_engine_cache_enable"], given["trt_timing_cache_enable"]) == ("1", "1")
        assert Path(given["trt_engine_cache_path"]).is_dir()
        assert Path(given["trt_engine_cache_path"]).parent == Path(given["trt_timing_cache_path"])
        assert not any("fp16" in name for name in given)


def test_a_relative_cache_folder_is_ignored(install: Install, monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    install(Fake())
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(in_folder / "home"))
    with gpu_runner(TENSORRT):
        pass
    assert [folder.name for folder in in_folder.iterdir() if folder.name != "cache"] == ["home"]
    assert (in_folder / "home" / ".cache" / "deploy-attn").is_dir()


def test_a_cache_that_cannot_be_written_is_named(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(Fake())
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with (
        pytest.raises(BadRequest, match=r"cannot be cached in .*file/deploy-attn.*Set XDG_CACHE_HOME"),
        gpu_runner(TENSORRT),
    ):
        pytest.fail("it has nowhere to write")


LOADING = "[E:onnxruntime] Failed to load library libonnxruntime_providers.so with error: "
NOT_THERE = ": cannot open shared object file: No such file or directory\n"
NODES_ON_THE_CPU = RuntimeError("This session contains graph nodes that are assigned to the default CPU EP")


@GPU_PROVIDERS
@pytest.mark.parametrize("raises", [None, NODES_ON_THE_CPU], ids=["silently", "by its nodes"])
@pytest.mark.parametrize(
    ("log", "words"),
    [
        (f"{LOADING}libcuda.so.1{NOT_THERE}", ["libcuda.so.1 cannot be loaded", "driver of an NVIDIA GPU"]),
        (f"{LOADING}libcublasLt.so.13{NOT_THERE}", ["libcublasLt.so.13", "pip install 'onnxruntime-gpu[cuda,cudnn]'"]),
        (f"{LOADING}libnvinfer.so.10{NOT_THERE}", ["libnvinfer.so.10", "pip install 'tensorrt==10.*'"]),
        ("CUDA failure 35: driver version is insufficient\n", ["says: CUDA failure 35", "deploy-attn doctor"]),
    ],
)
def test_a_provider_that_does_not_start_is_an_error_with_the_reason_from_the_log(
    install: Install,
    capfd: pytest.CaptureFixture[str],
    provider: str,
    raises: Exception | None,
    log: str,
    words: list[str],
) -> None:
    install(Fake(starts=(), log=log, raises=raises))
    with pytest.raises(BadRequest) as raised, gpu_runner(provider):
        pytest.fail("it runs elsewhere")
    message = str(raised.value)
    assert message.startswith(f"{provider} was asked for and did not start: ")
    assert all(word in message for word in words)
    assert message.endswith("Nothing was run on the CPU instead.")
    assert capfd.readouterr() == ("", "")


def test_a_provider_that_says_nothing_and_did_not_start_is_an_error_too(install: Install) -> None:
    install(Fake(starts=(CUDA,)))
    with pytest.raises(BadRequest, match=r"TensorrtExecutionProvider .* does not say why"), gpu_runner(TENSORRT):
        pytest.fail("it runs on CUDA")


def test_a_node_that_is_left_to_the_cpu_is_what_onnxruntime_says_of_the_graph(install: Install) -> None:
    install(Fake(raises=NODES_ON_THE_CPU))
    with pytest.raises(RuntimeError, match="assigned to the default CPU EP"), gpu_runner(CUDA):
        pytest.fail("a node ran on the CPU")


def test_a_provider_that_does_not_start_where_stderr_is_closed_is_an_error_all_the_same() -> None:
    code = """
import os, sys
import tests.engines.test_onnxruntime as this
os.close(2)
sys.modules["onnxruntime"] = this.Fake(starts=()).module()
try:
    this.gpu_runner(this.CUDA).__enter__()
except this.BadRequest as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "did not start" in done.stdout


@GPU_PROVIDERS
def test_the_conditions_on_a_gpu_tell_the_device_and_no_path_of_this_machine(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, provider: str
) -> None:
    install(Fake())
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'A GPU, 9.0, 580.1'\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    conditions = gpu_runner(provider).conditions()
    assert json.loads(json.dumps(conditions, allow_nan=False)) == conditions
    assert conditions["provider"] == provider
    assert (conditions["device"], conditions["cuda"], conditions["gpus"]) == ("cuda:0", "13.0", ["A GPU, 9.0, 580.1"])
    assert str(tmp_path) not in json.dumps(conditions)


@pytest.mark.parametrize(("value", "told"), [("0", "off by NVIDIA_TF32_OVERRIDE"), ("1", "as TensorRT chooses")])
def test_whether_tensorrt_may_use_tf32_is_told(
    install: Install, monkeypatch: pytest.MonkeyPatch, value: str, told: str
) -> None:
    install(Fake())
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", value)
    assert gpu_runner(TENSORRT).conditions()["tf32"] == told
    assert "tf32" not in gpu_runner(CUDA).conditions()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    request = ExportRequest("se", shape=(1, 8, 5, 6), fp16=True, options={"reduction": 4}, output=tmp_path / "se")
    return export_artifact(request).folder


def test_no_module_of_the_room_needs_torch_and_an_artifact_is_verified_without_it(artifact: Path) -> None:
    code = """
import sys
sys.modules["torch"] = sys.modules["onnxsim"] = sys.modules["deploy_attn.export"] = None
import importlib, pkgutil
import deploy_attn.engines
names = [found.name for found in pkgutil.walk_packages(deploy_attn.engines.__path__, "deploy_attn.engines.")]
for name in names:
    importlib.import_module(name)
verdict = deploy_attn.engines.verify(sys.argv[1])
print(len(names), len(verdict.checks), verdict.passed)
"""
    done = subprocess.run([sys.executable, "-c", code, str(artifact)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules, checks, passed = done.stdout.split()
    assert int(modules) >= 5
    assert (checks, passed) == ("9", "True")


def test_an_artifact_is_verified_on_a_gpu_provider_in_exact_and_device_brackets(
    artifact: Path, install: Install
) -> None:
    install(Fake())
    verdict = verify(artifact, "onnxruntime-cuda")
    assert verdict.passed
    assert [(check.graph, check.bracket) for check in verdict.checks] == [
        *(("model.onnx", "exact"),) * 3,
        *(("model.fp16.onnx", "device"),) * 3,
    ]
    written = json.loads((artifact / "verdict-onnxruntime-cuda.json").read_text(encoding="utf-8"))
    assert written["conditions"]["provider"] == CUDA
    assert written["conditions"]["provider_options"]["use_tf32"] == "0"


def test_an_artifact_is_not_verified_where_the_provider_does_not_start(artifact: Path, install: Install) -> None:
    install(Fake(starts=(), log=f"{LOADING}libcuda.so.1{NOT_THERE}"))
    with pytest.raises(BadRequest, match=r"libcuda\.so\.1") as raised:
        verify(artifact, "onnxruntime-cuda")
    assert raised.value.exit_code == 2
    assert not (artifact / "verdict-onnxruntime-cuda.json").exists()
