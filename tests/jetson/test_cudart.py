"""CUDA by ctypes: against a stub that logs what it is given, and the error path of a real libcudart where one is."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest

from deploy_attn.jetson import cudart as cudart_module
from deploy_attn.jetson.cudart import VARIABLE, CudaError, Cudart, NoGpu, candidates
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from tests.jetson import stub

ROOM = os.path.dirname(os.path.abspath(cudart_module.__file__))


class Stub:
    """A stub of its own for a test: what it logged, and what it still holds."""

    def __init__(self, path: str, log: str) -> None:
        self.path = path
        self._log = log

    @property
    def calls(self) -> List[Tuple[str, ...]]:
        return stub.calls(self._log)

    @property
    def names(self) -> List[str]:
        return [call[0] for call in self.calls]

    @property
    def live(self) -> int:
        return stub.live(self.path)


@pytest.fixture(params=[(), ("-DCUDA_10_2",)], ids=["cuda-12", "cuda-10.2"])
def library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv(stub.LOG, str(tmp_path / "log"))
    return Stub(stub.compiled(str(tmp_path), *request.param), str(tmp_path / "log"))


def pointer(address: int) -> str:
    return "0x{:x}".format(address)


def test_sizes_and_addresses_arrive_whole_and_in_order(library: Stub) -> None:
    cudart = Cudart(library.path)
    with pytest.raises(CudaError):
        cudart.malloc((7 << 32) + 5)
    assert library.calls[0] == ("cudaMalloc", str((7 << 32) + 5))
    address = cudart.malloc(48)
    stream = cudart.stream()
    host = ctypes.create_string_buffer(48)
    cudart.copy_to_device(address, ctypes.addressof(host), 48, stream.handle)
    cudart.copy_to_host(ctypes.addressof(host), address, 48, stream.handle)
    device, here, queue = pointer(address), pointer(ctypes.addressof(host)), pointer(stream.handle)
    assert library.calls[-2:] == [
        ("cudaMemcpyAsync", device, here, "48", "1", queue),
        ("cudaMemcpyAsync", here, device, "48", "2", queue),
    ]
    with pytest.raises(CudaError, match="invalid argument"):
        cudart.copy_to_device(address, ctypes.addressof(host), (3 << 32) + 48, stream.handle)
    assert library.calls[-1][3] == str((3 << 32) + 48)
    assert address > 1 << 32


def test_what_is_copied_there_and_back_is_the_same_once_the_stream_is_synchronised(library: Stub) -> None:
    cudart = Cudart(library.path)
    sent, back = ctypes.create_string_buffer(b"attention", 9), ctypes.create_string_buffer(9)
    with cudart.stream() as stream, cudart.buffer(9) as buffer:
        cudart.copy_to_device(buffer.handle, ctypes.addressof(sent), 9, stream.handle)
        cudart.copy_to_host(ctypes.addressof(back), buffer.handle, 9, stream.handle)
        assert back.raw == b"\0" * 9
        stream.synchronize()
    assert back.raw == b"attention"
    assert library.live == 0


def test_the_device_and_the_versions_are_read(library: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    cudart = Cudart(library.path)
    monkeypatch.setenv(stub.COMPUTE_CAPABILITY, "11.0")
    assert cudart.compute_capability() == "11.0"
    assert [call[1:] for call in library.calls] == [("75", "0"), ("76", "0")]
    assert cudart.device_attribute(16, 3) == 1016
    assert library.calls[-1] == ("cudaDeviceGetAttribute", "16", "3")
    assert cudart.device_name() == "Stub GPU"
    assert (cudart.runtime_version(), cudart.driver_version()) == ("12.6", "12.4")
    assert cudart.mem_info() == ((5 << 30) + 1, 139 << 30)


def test_events_measure_between_two_points_of_a_stream(library: Stub) -> None:
    cudart = Cudart(library.path)
    with cudart.stream() as stream, cudart.event() as start, cudart.event() as end:
        start.record(stream)
        end.record(stream)
        end.synchronize()
        assert end.milliseconds_since(start) == 1.5
        assert library.calls[-1] == ("cudaEventElapsedTime", pointer(start.handle), pointer(end.handle))
    assert library.live == 0


def test_a_captured_graph_is_instantiated_as_this_cuda_wants_it_and_launched(
    library: Stub, request: pytest.FixtureRequest
) -> None:
    cudart = Cudart(library.path)
    with cudart.stream() as stream:
        stream.begin_capture()
        assert library.calls[-1] == ("cudaStreamBeginCapture", pointer(stream.handle), "1")
        with stream.end_capture() as graph:
            graph.launch(stream)
            assert library.calls[-1] == ("cudaGraphLaunch", pointer(graph.handle), pointer(stream.handle))
    made = [call for call in library.calls if call[0].startswith("cudaGraphInstantiate")]
    if "10.2" in request.node.name:
        assert [call[0::2] for call in made] == [("cudaGraphInstantiate", "(nil)", "0")]
    else:
        assert [(call[0], call[2]) for call in made] == [("cudaGraphInstantiateWithFlags", "0")]
    assert library.live == 0


@pytest.mark.parametrize("call", ["cudaGraphInstantiate", "cudaGraphInstantiateWithFlags", "cudaGraphExecDestroy"])
def test_a_graph_that_cannot_be_used_leaves_nothing_behind(
    library: Stub, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    cudart = Cudart(library.path)
    monkeypatch.setenv(stub.FAIL, "{}=900".format(call))
    failed = False
    with cudart.stream() as stream:
        stream.begin_capture()
        try:
            stream.end_capture().close()
        except CudaError as error:
            failed = error.function == call
    assert failed == (call in library.names)
    assert library.live == (1 if failed and call == "cudaGraphExecDestroy" else 0)


CALLS: Dict[str, Callable[[Cudart], Any]] = {
    "cudaMalloc": lambda cudart: cudart.malloc(8),
    "cudaFree": lambda cudart: cudart.free(8),
    "cudaMemcpyAsync": lambda cudart: cudart.copy_to_device(8, 8, 8, 8),
    "cudaMemGetInfo": lambda cudart: cudart.mem_info(),
    "cudaStreamCreate": lambda cudart: cudart.stream(),
    "cudaEventCreate": lambda cudart: cudart.event(),
    "cudaDeviceGetAttribute": lambda cudart: cudart.compute_capability(),
    "cudaGetDeviceProperties": lambda cudart: cudart.device_name(),
}


@pytest.mark.parametrize("function", sorted(CALLS))
def test_an_error_names_the_call_the_code_and_cudas_words_for_it(
    library: Stub, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    cudart = Cudart(library.path)
    monkeypatch.setenv(stub.FAIL, "{}=700".format(function))
    with pytest.raises(CudaError) as raised:
        CALLS[function](cudart)
    assert (raised.value.function, raised.value.code, raised.value.exit_code) == (function, 700, 1)
    assert isinstance(raised.value, DeployAttnError)
    assert function in str(raised.value)
    assert "700 (an illegal memory access was encountered)" in str(raised.value)


@pytest.mark.parametrize("function", sorted(CALLS))
def test_without_a_driver_every_call_says_so(library: Stub, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    cudart = Cudart(library.path)
    monkeypatch.setenv(stub.FAIL, "{}=35".format(function))
    with pytest.raises(NoGpu) as raised:
        CALLS[function](cudart)
    assert raised.value.exit_code == 2
    assert str(raised.value).startswith("No CUDA driver or no GPU")
    assert "The library is CUDA 12.6" in str(raised.value)
    assert "the driver knows CUDA 12.4" in str(raised.value)


def test_too_little_memory_says_what_was_asked_and_what_there_is(library: Stub) -> None:
    with pytest.raises(CudaError) as raised:
        Cudart(library.path).malloc(2 << 30)
    assert raised.value.code == 2
    assert "{} bytes".format(2 << 30) in str(raised.value)
    assert "5120 of {} MiB free".format(139 << 10) in str(raised.value)


def test_an_error_is_not_left_for_the_next_kernel_launch_to_find(library: Stub) -> None:
    cudart = Cudart(library.path)
    with pytest.raises(CudaError):
        cudart.free(12345)
    assert ctypes.CDLL(library.path).cudaGetLastError() == 0


def test_what_was_given_back_is_given_back_once_and_not_used_again(library: Stub) -> None:
    cudart = Cudart(library.path)
    buffer = cudart.buffer(4)
    buffer.close()
    buffer.close()
    assert library.names.count("cudaFree") == 1
    with pytest.raises(RuntimeError, match="already"):
        assert buffer.handle


def test_nothing_is_so_small_that_it_has_no_address(library: Stub) -> None:
    with Cudart(library.path).buffer(0) as empty:
        assert empty.handle


def test_an_error_on_the_way_out_does_not_hide_the_first_one(library: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    cudart = Cudart(library.path)
    with pytest.raises(ValueError, match="the first"), cudart.buffer(4), cudart.stream():
        monkeypatch.setenv(stub.FAIL, "cudaFree=700 cudaStreamDestroy=700")
        raise ValueError("the first")
    with pytest.raises(CudaError, match="cudaFree"), cudart.buffer(4):
        pass


# --- finding the library


Machine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """An empty root, no search path, no packages, and a way to put libraries there."""
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(sys, "path", [""])

    def put(*places: str) -> Path:
        for place in places:
            file = tmp_path / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")
        return tmp_path

    return put


def found(root: Path) -> List[str]:
    return [os.path.relpath(path, str(root)) for path in candidates(str(root)) if os.path.isabs(path)]


def test_the_loader_is_asked_first_then_the_toolkit_newest_first(machine: Machine) -> None:
    root = machine(
        "usr/local/cuda-9.0/lib64/libcudart.so.9.0",
        "usr/local/cuda-13.0/lib64/libcudart.so.13",
        "usr/local/cuda-10.2/targets/aarch64-linux/lib/libcudart.so.10.2",
        "usr/local/cuda-10.2/targets/aarch64-linux/lib/libcudart_static.a",
        "usr/local/cuda-12.6/lib/libcudart.so.12",
    )
    names = [name for name in candidates(str(root)) if not os.path.isabs(name)]
    assert names == ["libcudart.so", "libcudart.so.10.2", "libcudart.so.11.0", "libcudart.so.12", "libcudart.so.13"]
    assert list(candidates(str(root)))[: len(names)] == names
    assert found(root) == [
        "usr/local/cuda-13.0/lib64/libcudart.so.13",
        "usr/local/cuda-9.0/lib64/libcudart.so.9.0",
        "usr/local/cuda-10.2/targets/aarch64-linux/lib/libcudart.so.10.2",
        "usr/local/cuda-12.6/lib/libcudart.so.12",
    ]


def test_the_toolkit_that_is_linked_comes_before_newer_ones_and_once(machine: Machine) -> None:
    root = machine("usr/local/cuda-10.2/lib64/libcudart.so.10.2", "usr/local/cuda-13.0/lib64/libcudart.so.13")
    (root / "usr/local/cuda").symlink_to(root / "usr/local/cuda-10.2")
    assert found(root) == ["usr/local/cuda/lib64/libcudart.so.10.2", "usr/local/cuda-13.0/lib64/libcudart.so.13"]


def test_then_the_search_path_and_the_packages_of_pip(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(
        "pip [1]/nvidia/cuda_runtime/lib/libcudart.so.12", "pip [1]/nvidia/cu13/lib/libcudart.so.13", "own/libcudart.so"
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join(["", str(root / "own"), "/nowhere"]))
    monkeypatch.setattr(sys, "path", ["", str(root / "pip [1]")])
    assert found(root) == [
        "own/libcudart.so",
        "pip [1]/nvidia/cu13/lib/libcudart.so.13",
        "pip [1]/nvidia/cuda_runtime/lib/libcudart.so.12",
    ]


def test_the_current_folder_is_no_place_to_load_a_library_from(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(machine("nvidia/cu13/lib/libcudart.so.13")))
    assert [path for path in candidates("/nowhere") if os.sep in path] == []


def test_a_library_that_does_not_load_is_passed_over(
    library: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    found_here = [str(broken), "libm.so.6", library.path]
    monkeypatch.setattr(cudart_module, "candidates", lambda: iter(found_here))
    assert Cudart().path == library.path


def test_no_library_is_a_request_that_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(cudart_module, "candidates", lambda: iter(["libcudart-of-nobody.so"]))
    with pytest.raises(BadRequest) as raised:
        Cudart()
    for word in ("/usr/local/cuda*", "LD_LIBRARY_PATH", "JetPack", "nvidia-cuda-runtime-cu12", VARIABLE):
        assert word in str(raised.value)
    broken = tmp_path / "libcudart.so.12"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(cudart_module, "candidates", lambda: iter([str(broken)]))
    with pytest.raises(BadRequest, match="what was found does not load: {}".format(broken)):
        Cudart()


@pytest.mark.parametrize("how", ["argument", "variable"])
@pytest.mark.parametrize("path", ["/nowhere/libcudart.so", "libm.so.6", __file__, os.path.dirname(__file__)])
def test_a_library_that_was_named_is_the_one_or_an_error(
    library: Stub, monkeypatch: pytest.MonkeyPatch, how: str, path: str
) -> None:
    monkeypatch.setattr(cudart_module, "candidates", lambda: iter([library.path]))
    if how == "variable":
        monkeypatch.setenv(VARIABLE, path)
    with pytest.raises(BadRequest) as raised:
        Cudart(path if how == "argument" else None)
    assert path in str(raised.value)


def test_the_variable_names_the_library(library: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, library.path)
    assert Cudart().path == library.path
    assert Cudart().runtime_version() == "12.6"


# --- real things


def real_library() -> Optional[str]:
    """A libcudart of NVIDIA's own, if this machine has one: without it the stub's rows are the whole test."""
    for path in candidates():
        try:
            return Cudart(path).path
        except BadRequest:
            continue
    return None


REAL = [path for path in [real_library()] if path]


@pytest.mark.parametrize("path", REAL)
def test_the_real_library_has_every_function_and_tells_its_version(path: str) -> None:
    assert float(Cudart(path).runtime_version()) >= 10.2


@pytest.mark.parametrize("path", REAL)
@pytest.mark.parametrize("function", sorted(set(CALLS) - {"cudaFree", "cudaMemcpyAsync"}))
def test_the_real_library_answers_or_says_that_there_is_no_gpu(path: str, function: str) -> None:
    cudart = Cudart(path)
    if cudart.driver_version() is None:
        with pytest.raises(NoGpu, match="no driver"):
            CALLS[function](cudart)
    else:
        assert CALLS[function](cudart)


def test_addresses_take_no_numpy(library: Stub, tmp_path: Path) -> None:
    for name in ("__init__.py", "errors.py", "cudart.py"):
        (tmp_path / "capsule").mkdir(exist_ok=True)
        shutil.copyfile(os.path.join(ROOM, name), str(tmp_path / "capsule" / name))
    code = (
        "import sys; sys.path.insert(0, {!r}); from capsule.cudart import Cudart; cudart = Cudart({!r})\n"
        "with cudart.stream() as stream, cudart.buffer((1 << 20) + 3) as buffer:\n"
        "    assert 'numpy' not in sys.modules\n"
        "    print(cudart.compute_capability(), cudart.device_name(), buffer.handle > 1 << 32)"
    ).format(str(tmp_path), library.path)
    assert subprocess.check_output([sys.executable, "-c", code]).decode().split() == ["8.6", "Stub", "GPU", "True"]
    assert ("cudaMalloc", str((1 << 20) + 3)) in library.calls
