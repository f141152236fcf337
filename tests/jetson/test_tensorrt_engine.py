"""Running engines on fakes of each version's API, over device memory that counts what is held and where it ends."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import pytest

from deploy_attn.jetson.cudart import VARIABLE, CudaError, Cudart, NoGpu
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.tensorrt_engine import TensorRtEngine
from tests.jetson import stub
from tests.jetson.fake_tensorrt.builder import engine_bytes
from tests.jetson.fake_tensorrt.versions import module

VERSIONS = ("8.0", "8.2", "8.4", "8.5", "8.6", "10", "11")
BY_NAME = ("8.5", "8.6", "10", "11")
EACH_VERSION = pytest.mark.parametrize("version", VERSIONS)


class Device:
    """A stub of CUDA with a log, which `Cudart` finds by the variable."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self._log = stub.compiled(str(folder)), folder / "log"
        self._monkeypatch = monkeypatch
        monkeypatch.setenv(VARIABLE, self.path)
        monkeypatch.setenv(stub.LOG, str(self._log))

    @property
    def live(self) -> int:
        return stub.live(self.path)

    @property
    def calls(self) -> List[Tuple[str, ...]]:
        return stub.calls(str(self._log))

    def count(self, name: str) -> int:
        return [call[0] for call in self.calls].count(name)

    def fail(self, calls: str) -> None:
        self._monkeypatch.setenv(stub.FAIL, calls)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(tmp_path, monkeypatch)


def io(name: str, mode: str, shape: Sequence[Optional[int]], dtype: str = "FLOAT", **flags: bool) -> Dict[str, Any]:
    return dict(flags, name=name, mode=mode, dtype=dtype, shape=list(shape))


def header(trt: Any, *tensors: Dict[str, Any], **more: Any) -> Dict[str, Any]:
    """A header of an engine that doubles its input."""
    tensors = tensors or (io("x", "INPUT", [2, 3]), io("y", "OUTPUT", [2, 3]))
    content: Dict[str, Any] = {
        "version": trt.__version__,
        "precision": "fp32",
        "profiles": [],
        "layers": [],
        "io": list(tensors),
    }
    content["multiples"] = {"y": ["x", 2]}
    content.update(more)
    return content


def load(engine: TensorRtEngine) -> None:
    with engine:
        pass


def loaded(trt: Any, *tensors: Dict[str, Any], **more: Any) -> TensorRtEngine:
    return TensorRtEngine(engine_bytes(header(trt, *tensors, **more), b""), trt, Cudart())


OPEN = (io("x", "INPUT", [None, 3]), io("y", "OUTPUT", [None, 3]))
UP_TO_4 = [{"x": [[1, 3], [2, 3], [4, 3]]}]
ONES = np.ones((2, 3), np.float32)


@EACH_VERSION
def test_an_engine_computes_and_gives_everything_back(device: Device, version: str) -> None:
    trt = module(version)
    with loaded(trt) as engine:
        assert engine.inputs == (("x", "float32", (2, 3)),)
        assert engine.outputs == (("y", "float32", (2, 3)),)
        for factor in (1, 3):
            outputs = engine.infer({"x": ONES * factor})
            assert list(outputs) == ["y"]
            assert outputs["y"].dtype == np.float32
            assert outputs["y"].tolist() == (ONES * 2 * factor).tolist()
        assert device.live > 0
    assert device.live == 0
    assert trt.Runtime._released == ["context", "engine", "runtime"]


class Part:
    """In the place of a part of an engine: notes when it ends, and whether device memory is still there then."""

    def __init__(self, name: str, device: Device, ended: List[Tuple[str, bool]]) -> None:
        self._name, self._device, self._ended = name, device, ended

    def __del__(self) -> None:
        self._ended.append((self._name, self._device.live > 0))


def test_parts_end_in_the_reverse_of_their_order_and_before_the_memory_that_they_use(device: Device) -> None:
    ended: List[Tuple[str, bool]] = []
    with loaded(module("8.2")) as engine:
        engine.infer({"x": ONES})
        for name in ("_logger", "_runtime", "_engine", "_context", "_io"):
            setattr(engine, name, Part(name, device, ended))
    assert ended == [(name, True) for name in ("_io", "_context", "_engine", "_runtime", "_logger")]
    assert device.live == 0


@EACH_VERSION
def test_plugins_are_registered_before_an_engine_is_read(
    device: Device, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = module(version)
    registered: List[Any] = []
    monkeypatch.setattr(trt, "init_libnvinfer_plugins", lambda logger, namespace: registered.append(namespace))
    with pytest.raises(BadRequest):
        load(TensorRtEngine(b"no engine", trt, Cudart()))
    assert registered == [""]


@EACH_VERSION
def test_device_memory_is_taken_once_for_the_same_shapes(device: Device, version: str) -> None:
    with loaded(module(version)) as engine:
        first = engine.infer({"x": ONES})
        taken = device.count("cudaMalloc")
        second = engine.infer({"x": ONES * 5})
    assert device.count("cudaMalloc") == taken == 2
    assert (first["y"] == 2).all()
    assert (second["y"] == 10).all()


@EACH_VERSION
def test_an_open_axis_takes_any_size_of_the_profile_and_memory_grows_with_it(device: Device, version: str) -> None:
    with loaded(module(version), *OPEN, profiles=UP_TO_4) as engine:
        assert engine.inputs[0].shape == (None, 3)
        for rows in (1, 4, 2):
            outputs = engine.infer({"x": np.full((rows, 3), rows, np.float32)})
            assert outputs["y"].tolist() == np.full((rows, 3), 2 * rows).tolist()
        assert device.count("cudaMalloc") == 4
        assert device.count("cudaFree") == 2
    assert device.live == 0


@EACH_VERSION
@pytest.mark.parametrize("rows", [0, 5])
def test_a_shape_outside_the_profile_is_named_with_what_is_allowed(device: Device, version: str, rows: int) -> None:
    with loaded(module(version), *OPEN, profiles=UP_TO_4) as engine:
        with pytest.raises(BadRequest) as raised:
            engine.infer({"x": np.ones((rows, 3), np.float32)})
        assert "'x' is {}x3; the engine was built for 1x3 to 4x3".format(rows) in str(raised.value)
        assert (engine.infer({"x": ONES})["y"] == 2).all()


@EACH_VERSION
def test_of_several_profiles_the_first_is_used(device: Device, version: str) -> None:
    profiles = UP_TO_4 + [{"x": [[8, 3], [8, 3], [9, 3]]}]
    with loaded(module(version), *OPEN, profiles=profiles) as engine:
        assert [tensor.name for tensor in engine.inputs + engine.outputs] == ["x", "y"]
        assert (engine.infer({"x": ONES})["y"] == 2).all()
        with pytest.raises(BadRequest, match="1x3 to 4x3"):
            engine.infer({"x": np.ones((8, 3), np.float32)})


@EACH_VERSION
def test_a_context_without_a_profile_is_given_the_first(device: Device, version: str) -> None:
    with loaded(module(version), *OPEN, profiles=UP_TO_4, active_profile=-1) as engine:
        assert (engine.infer({"x": ONES})["y"] == 2).all()


@EACH_VERSION
@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "takes inputs ['x'], got []"),
        ({"x": ONES, "z": ONES}, "got ['x', 'z']"),
        ({"x": ONES.astype(np.float64)}, "takes float32 of shape 2x3, got float64"),
        ({"x": ONES.astype(np.int64)}, "takes float32 of shape 2x3, got int64"),
        ({"x": ONES.astype(">f4")}, "takes float32"),
        ({"x": np.ones((3, 2), np.float32)}, "of shape 2x3, got float32 of shape 3x2"),
        ({"x": np.ones(6, np.float32)}, "got float32 of shape 6"),
        ({"x": np.float32(1)}, "got float32 of shape scalar"),
    ],
)
def test_what_the_engine_does_not_take_is_refused_before_anything_is_copied(
    device: Device, version: str, feeds: Dict[str, Any], words: str
) -> None:
    with loaded(module(version)) as engine:
        with pytest.raises(BadRequest) as raised:
            engine.infer(feeds)
        assert words in str(raised.value)
        assert device.count("cudaMemcpyAsync") == 0


@EACH_VERSION
def test_an_array_need_not_be_dense_nor_have_an_axis(device: Device, version: str) -> None:
    with loaded(module(version)) as engine:
        turned = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2].T
        assert engine.infer({"x": turned})["y"].tolist() == (turned * 2).tolist()
    with loaded(module(version), io("x", "INPUT", []), io("y", "OUTPUT", [])) as engine:
        assert engine.infer({"x": np.array(4, np.float32)})["y"].shape == ()
    with loaded(module(version), io("x", "INPUT", [0, 3]), io("y", "OUTPUT", [0, 3])) as engine:
        assert engine.infer({"x": np.ones((0, 3), np.float32)})["y"].shape == (0, 3)


# TensorRT's names, numpy's, and the first version that has the type.
TYPES = [
    ("FLOAT", "float32", "8.0"),
    ("HALF", "float16", "8.0"),
    ("INT8", "int8", "8.0"),
    ("INT32", "int32", "8.0"),
    ("BOOL", "bool", "8.0"),
    ("UINT8", "uint8", "8.5"),
    ("INT64", "int64", "10"),
]
TYPES_BY_VERSION = [
    (version, theirs, ours) for theirs, ours, first in TYPES for version in VERSIONS[VERSIONS.index(first) :]
]


@pytest.mark.parametrize(("version", "theirs", "ours"), TYPES_BY_VERSION)
def test_types_and_sizes_come_from_the_engine(device: Device, version: str, theirs: str, ours: str) -> None:
    tensors = (io("x", "INPUT", [4], theirs), io("y", "OUTPUT", [4], theirs))
    values = np.array([0, 1, 1, 0]).astype(ours)
    with loaded(module(version), *tensors, multiples={"y": ["x", 1]}) as engine:
        outputs = engine.infer({"x": values})
    assert (outputs["y"].dtype, outputs["y"].tolist()) == (values.dtype, values.tolist())
    sizes = {call[1] for call in device.calls if call[0] == "cudaMalloc"}
    assert sizes == {str(values.nbytes)}


@EACH_VERSION
def test_a_type_that_numpy_lacks_is_refused(device: Device, version: str) -> None:
    with pytest.raises(BadRequest, match=r"'x' is of type .*BF16"):
        load(loaded(module(version), io("x", "INPUT", [4], "BF16"), io("y", "OUTPUT", [4])))
    assert device.live == 0


INT32 = (io("x", "INPUT", [3], "INT32"), io("y", "OUTPUT", [3], "INT32"))


@EACH_VERSION
def test_int64_is_narrowed_for_an_engine_that_takes_int32(device: Device, version: str) -> None:
    limits = np.iinfo(np.int32)
    values = np.array([limits.min, 0, limits.max], np.int64)
    with loaded(module(version), *INT32, multiples={"y": ["x", 1]}) as engine:
        assert engine.infer({"x": values})["y"].tolist() == values.tolist()
        assert engine.infer({"x": values.astype(np.int32)})["y"].tolist() == values.tolist()


@EACH_VERSION
def test_int64_without_a_value_is_narrowed_too(device: Device, version: str) -> None:
    empty = (io("x", "INPUT", [0], "INT32"), io("y", "OUTPUT", [0], "INT32"))
    with loaded(module(version), *empty) as engine:
        assert engine.infer({"x": np.zeros(0, np.int64)})["y"].shape == (0,)


@EACH_VERSION
@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**63 - 1])
def test_a_value_that_int32_does_not_hold_is_refused(device: Device, version: str, value: int) -> None:
    feeds = {"x": np.array([value, 0, 0], np.int64)}
    words = "'x' holds values from .*{}".format(value)
    with loaded(module(version), *INT32) as engine, pytest.raises(BadRequest, match=words):
        engine.infer(feeds)


@EACH_VERSION
def test_a_shape_that_lies_on_the_host_is_refused(device: Device, version: str) -> None:
    with pytest.raises(BadRequest, match="'x' is a shape"):
        load(loaded(module(version), io("x", "INPUT", [4], "INT32", host=True), io("y", "OUTPUT", [4])))
    assert device.live == 0


DEPENDENT = (io("x", "INPUT", [2, 3]), io("y", "OUTPUT", [None, 3], data_dependent=True))


@pytest.mark.parametrize("version", BY_NAME)
def test_an_output_whose_size_depends_on_values_is_allocated_while_it_runs(device: Device, version: str) -> None:
    with loaded(module(version), *DEPENDENT) as engine:
        for factor in (1, 2):
            assert engine.infer({"x": ONES * factor})["y"].tolist() == (ONES * 2 * factor).tolist()
    assert device.live == 0


@pytest.mark.parametrize("version", sorted(set(VERSIONS) - set(BY_NAME)))
def test_an_output_whose_size_depends_on_values_is_refused_where_there_is_no_allocator(
    device: Device, version: str
) -> None:
    words = r"output 'y' depends on values \(\?x3\)"
    with loaded(module(version), *DEPENDENT) as engine, pytest.raises(BadRequest, match=words):
        engine.infer({"x": ONES})


# --- loading


@EACH_VERSION
@pytest.mark.parametrize("content", [b"", b"FAKE-TRT\n", b"\0" * 100, b"FAKE-TRT\n{}\n", b"FAKE-TRT\n[1, 2]\n"])
def test_bytes_that_are_no_engine_are_refused_with_what_tensorrt_says(
    device: Device, version: str, content: bytes
) -> None:
    trt = module(version)
    with pytest.raises(BadRequest) as raised, TensorRtEngine(content, trt, Cudart()):
        pass
    message = str(raised.value)
    assert "corrupt" in message
    assert "magicTag" in message
    assert "TensorRT {}".format(trt.__version__) in message
    assert "compute capability 8.6" in message
    assert device.live == 0


@EACH_VERSION
def test_an_engine_of_another_tensorrt_or_gpu_is_refused_with_the_reason(
    device: Device, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = module(version)
    with pytest.raises(BadRequest, match=r"expecting library version .* got 9\.9\.9"), loaded(trt, version="9.9.9"):
        pass
    monkeypatch.setenv(stub.COMPUTE_CAPABILITY, "8.7")
    with pytest.raises(BadRequest, match=r"expecting compute 8\.7 got compute 7\.2"):
        load(loaded(trt, compute_capability="7.2"))
    assert device.live == 0


@pytest.mark.parametrize("version", ["8.6", "10", "11"])
def test_a_version_compatible_engine_is_loaded_where_the_caller_vouches_for_it(device: Device, version: str) -> None:
    trt = module(version)
    content = engine_bytes(header(trt, version_compatible=True), b"")
    with TensorRtEngine(content, trt, Cudart(), version_compatible=True) as engine:
        assert (engine.infer({"x": ONES})["y"] == 2).all()
    with pytest.raises(BadRequest, match="host code is not allowed"), TensorRtEngine(content, trt, Cudart()):
        pass


@EACH_VERSION
def test_a_context_that_has_no_room_says_what_there_is(device: Device, version: str) -> None:
    with pytest.raises(DeployAttnError, match=r"5120 of \d+ MiB free: Requested amount of GPU memory"):
        load(loaded(module(version), no_context=True))
    assert device.live == 0


@pytest.mark.parametrize("error", [TypeError("factory function returned nullptr"), RuntimeError("no CUDA")])
def test_a_runtime_that_does_not_start_is_a_request_that_cannot_be_served(
    device: Device, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    trt = module("8.2")

    def refuse(logger: object) -> None:
        raise error

    monkeypatch.setattr(trt, "Runtime", refuse)
    with pytest.raises(BadRequest, match="cannot start its runtime: {}".format(error)), loaded(trt):
        pass
    assert device.live == 0


# --- failures on the way


# Every call to CUDA, failing from its nth time on.
FAILURES = [
    ("cudaStreamCreate=2", "load"),
    ("cudaMalloc=2", "infer"),
    ("cudaMalloc=2@2", "infer"),
    ("cudaMemcpyAsync=700", "infer"),
    ("cudaMemcpyAsync=700@2", "infer"),
    ("cudaStreamSynchronize=700", "infer"),
    ("cudaStreamSynchronize=700@2", "infer"),
    ("cudaFree=700", "leave"),
    ("cudaStreamDestroy=700", "leave"),
]


@EACH_VERSION
@pytest.mark.parametrize(("failure", "when"), FAILURES)
def test_a_failure_is_told_and_leaves_nothing_behind(device: Device, version: str, failure: str, when: str) -> None:
    trt = module(version)
    reached: List[str] = []
    device.fail(failure)
    with pytest.raises(CudaError, match=failure.partition("=")[0]), loaded(trt) as engine:
        reached.append("load")
        engine.infer({"x": ONES})
        reached.append("infer")
    assert reached == {"load": [], "infer": ["load"], "leave": ["load", "infer"]}[when]
    assert device.live == {"cudaFree=700": 2, "cudaStreamDestroy=700": 1}.get(failure, 0)
    assert trt.Runtime._released == ([] if when == "load" else ["context", "engine", "runtime"])


@EACH_VERSION
def test_a_fault_is_told_as_what_it_was_and_not_as_the_frees_that_fail_after_it(device: Device, version: str) -> None:
    with pytest.raises(CudaError) as raised, loaded(module(version)) as engine:
        device.fail("cudaStreamSynchronize=700 cudaFree=700 cudaStreamDestroy=700")
        engine.infer({"x": ONES})
    assert raised.value.function == "cudaStreamSynchronize"


@EACH_VERSION
def test_an_engine_that_tensorrt_does_not_run_is_an_error_with_its_words(
    device: Device, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = module(version)
    monkeypatch.setattr(trt.IExecutionContext, "_run", lambda self, stream, addresses: self._refuse("myelin error."))
    with loaded(trt) as engine, pytest.raises(DeployAttnError, match="could not run the engine: myelin error"):
        engine.infer({"x": ONES})
    assert device.live == 0


@EACH_VERSION
def test_a_shape_that_tensorrt_refuses_is_an_error_with_its_words(
    device: Device, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = module(version)
    monkeypatch.setattr(trt.IExecutionContext, "_set_shape", lambda self, name, shape: self._refuse("not so."))
    words = "refuses shape 2x3 for input 'x': not so"
    with loaded(trt, *OPEN, profiles=UP_TO_4) as engine, pytest.raises(BadRequest, match=words):
        engine.infer({"x": ONES})


def test_without_a_gpu_it_says_so(device: Device) -> None:
    device.fail("cudaStreamCreate=35")
    with pytest.raises(NoGpu), loaded(module("10")):
        pass


# --- states


def test_an_engine_that_is_not_loaded_does_not_run(device: Device) -> None:
    engine = loaded(module("8.2"))
    with pytest.raises(RuntimeError, match="not loaded"):
        engine.infer({"x": ONES})
    with engine:
        with pytest.raises(RuntimeError, match="nothing was bound"):
            engine.fetch()
        engine.infer({"x": ONES})
    with pytest.raises(RuntimeError, match="not loaded"):
        engine.infer({"x": ONES})
    with engine:
        assert (engine.infer({"x": ONES})["y"] == 2).all()
    assert device.live == 0


@EACH_VERSION
def test_its_steps_run_on_one_stream_that_can_be_captured(device: Device, version: str) -> None:
    with loaded(module(version)) as engine:
        engine.bind({"x": ONES})
        engine.stream.begin_capture()
        engine.enqueue()
        with engine.stream.end_capture() as graph:
            graph.launch(engine.stream)
        assert (engine.fetch()["y"] == 2).all()
        streams = {call[5] for call in device.calls if call[0] == "cudaMemcpyAsync"}
        assert streams == {"0x{:x}".format(engine.stream.handle)}
    assert device.live == 0
