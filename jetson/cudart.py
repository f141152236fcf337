"""The CUDA runtime by ctypes: memory, copies, streams, events, graphs, and what the device is.

A board has libcudart and a compiler-free Python 3.6: no pycuda, no cuda-python.
Every pointer travels as `c_void_p` and every size as `c_size_t`; without that
ctypes would pass 32 bits of a 64-bit address.
"""

import ctypes
import glob
import os
import re
import sys
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from .errors import BadRequest, DeployAttnError

# Names the library to take, where a machine has several and the first one found is the wrong one.
VARIABLE = "DEPLOY_ATTN_CUDART"

_NAMES = ("libcudart.so", "libcudart.so.10.2", "libcudart.so.11.0", "libcudart.so.12", "libcudart.so.13")
_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
_COMPUTE_CAPABILITY = (75, 76)  # cudaDevAttrComputeCapabilityMajor, ...Minor
_THREAD_LOCAL_CAPTURE = 1  # other threads may go on allocating
_OUT_OF_MEMORY = 2
# Stub library, driver older than the library or none, driver too old for a call, no device, device not ready.
_NO_GPU = frozenset((34, 35, 36, 100, 802, 803, 804))
# The struct differs between releases (712 bytes in CUDA 10.2, 1 KiB in 13); `char name[256]` opens all of them.
_PROPERTIES_BYTES, _NAME_BYTES = 8192, 256

_POINTER = ctypes.c_void_p
_POINTER_OUT = ctypes.POINTER(ctypes.c_void_p)
_INT_OUT = ctypes.POINTER(ctypes.c_int)
_SIZE_OUT = ctypes.POINTER(ctypes.c_size_t)
_FLOAT_OUT = ctypes.POINTER(ctypes.c_float)
_Signature = Tuple[str, Tuple[Any, ...]]
_SIGNATURES: Tuple[_Signature, ...] = (
    ("cudaMalloc", (_POINTER_OUT, ctypes.c_size_t)),
    ("cudaFree", (_POINTER,)),
    ("cudaMemcpyAsync", (_POINTER, _POINTER, ctypes.c_size_t, ctypes.c_int, _POINTER)),
    ("cudaMemGetInfo", (_SIZE_OUT, _SIZE_OUT)),
    ("cudaStreamCreate", (_POINTER_OUT,)),
    ("cudaStreamSynchronize", (_POINTER,)),
    ("cudaStreamDestroy", (_POINTER,)),
    ("cudaEventCreate", (_POINTER_OUT,)),
    ("cudaEventRecord", (_POINTER, _POINTER)),
    ("cudaEventSynchronize", (_POINTER,)),
    ("cudaEventElapsedTime", (_FLOAT_OUT, _POINTER, _POINTER)),
    ("cudaEventDestroy", (_POINTER,)),
    ("cudaDeviceGetAttribute", (_INT_OUT, ctypes.c_int, ctypes.c_int)),
    ("cudaGetDeviceProperties", (_POINTER, ctypes.c_int)),
    ("cudaRuntimeGetVersion", (_INT_OUT,)),
    ("cudaDriverGetVersion", (_INT_OUT,)),
    ("cudaGetLastError", ()),
    ("cudaStreamBeginCapture", (_POINTER, ctypes.c_int)),
    ("cudaStreamEndCapture", (_POINTER, _POINTER_OUT)),
    ("cudaGraphLaunch", (_POINTER, _POINTER)),
    ("cudaGraphExecDestroy", (_POINTER,)),
    ("cudaGraphDestroy", (_POINTER,)),
)
# `cudaGraphInstantiate` changed its arguments between CUDA 11 and 12 under one name. The other name has one form only,
# and where it is missing (CUDA 10.2) the first name has its old form.
_INSTANTIATE_WITH_FLAGS: _Signature = ("cudaGraphInstantiateWithFlags", (_POINTER_OUT, _POINTER, ctypes.c_ulonglong))
_INSTANTIATE_10_2: _Signature = (
    "cudaGraphInstantiate",
    (_POINTER_OUT, _POINTER, _POINTER_OUT, ctypes.c_char_p, ctypes.c_size_t),
)


class CudaError(DeployAttnError):
    """A CUDA call that failed: `function`, its `code`, and CUDA's own text for it."""

    def __init__(self, function: str, code: int, message: str) -> None:
        super().__init__(message)
        self.function = function
        self.code = code


class NoGpu(CudaError):
    """No driver or no GPU: nothing can run on CUDA here."""

    exit_code = BadRequest.exit_code


class Cudart:
    """One loaded libcudart. Addresses and handles are plain integers, sizes are bytes.

    Raises:
        BadRequest: no library, or the one that was named is none.
    """

    def __init__(self, path: Optional[str] = None) -> None:
        self._library, self.path = _load(path or os.environ.get(VARIABLE))

    def malloc(self, nbytes: int) -> int:
        """Device memory; the address of at least one byte, aligned for every type.

        Raises:
            CudaError: not enough of it; says how much there is.
        """
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), max(nbytes, 1), asked="{} bytes".format(nbytes))
        return address.value or 0

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def copy_to_device(self, device: int, host: int, nbytes: int, stream: int) -> None:
        """Queues a copy; the host's memory must live until the stream is synchronised."""
        self._call("cudaMemcpyAsync", device, host, nbytes, _HOST_TO_DEVICE, stream)

    def copy_to_host(self, host: int, device: int, nbytes: int, stream: int) -> None:
        """Queues a copy; the host may read it once the stream is synchronised."""
        self._call("cudaMemcpyAsync", host, device, nbytes, _DEVICE_TO_HOST, stream)

    def mem_info(self) -> Tuple[int, int]:
        """(free, total) bytes. On a Jetson `free` leaves out what the system could reclaim."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def device_attribute(self, attribute: int, device: int = 0) -> int:
        """One `cudaDevAttr` number."""
        value = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, device)
        return value.value

    def compute_capability(self, device: int = 0) -> str:
        """As `8.6`."""
        return ".".join(str(self.device_attribute(attribute, device)) for attribute in _COMPUTE_CAPABILITY)

    def device_name(self, device: int = 0) -> str:
        properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        self._call("cudaGetDeviceProperties", properties, device)
        return properties.raw[:_NAME_BYTES].split(b"\0")[0].decode("utf-8", "replace")

    def runtime_version(self) -> str:
        """Of this library, as `12.6`; needs no GPU."""
        return self._version("cudaRuntimeGetVersion")

    def driver_version(self) -> Optional[str]:
        """The newest CUDA that the driver knows, as `12.6`; None without a driver."""
        version = self._version("cudaDriverGetVersion")
        return None if version == "0.0" else version

    def stream(self) -> "Stream":
        return Stream(self)

    def event(self) -> "Event":
        return Event(self)

    def buffer(self, nbytes: int) -> "DeviceBuffer":
        return DeviceBuffer(self, nbytes)

    def _version(self, function: str) -> str:
        number = ctypes.c_int()
        self._call(function, ctypes.byref(number))
        return "{}.{}".format(number.value // 1000, number.value % 1000 // 10)

    def _create(self, function: str) -> int:
        handle = ctypes.c_void_p()
        self._call(function, ctypes.byref(handle))
        return handle.value or 0

    def _call(self, function: str, *arguments: Any, **words: str) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            # Left in place, the error would be reported by the next kernel launch of whoever asks for it.
            self._library.cudaGetLastError()
            raise self._error(function, code, words.get("asked", ""))

    def _error(self, function: str, code: int, asked: str) -> CudaError:
        text = (self._library.cudaGetErrorString(code) or b"").decode("utf-8", "replace")
        what = "{}{} failed with CUDA error {} ({})".format(
            function, " of {}".format(asked) if asked else "", code, text or "no text"
        )
        if code in _NO_GPU:
            driver = "the driver knows CUDA {}".format(self.driver_version()) if self._has_driver() else "no driver"
            return NoGpu(
                function,
                code,
                "No CUDA driver or no GPU that it can use: {}. The library is CUDA {} ({}), {}. Run this on a machine "
                "with an NVIDIA GPU and a driver of at least the library's version, or name an older library in "
                "{}.".format(what, self.runtime_version(), self.path, driver, VARIABLE),
            )
        if code == _OUT_OF_MEMORY:
            return CudaError(function, code, "{}. {}".format(what, self._memory()))
        return CudaError(function, code, "{}.".format(what))

    def _has_driver(self) -> bool:
        try:
            return self.driver_version() is not None
        except CudaError:
            return False

    def _memory(self) -> str:
        advice = "Use smaller shapes, or end what else holds GPU memory."
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        if self._library.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)):
            return advice
        return "The GPU has {} of {} MiB free. {}".format(free.value >> 20, total.value >> 20, advice)


class _Held:
    """What must be given back to CUDA exactly once: a context manager over one handle."""

    def __init__(self, cudart: Cudart, handle: int, release: str) -> None:
        self._cudart = cudart
        self._release = release
        self._handle = handle

    @property
    def handle(self) -> int:
        """Raises RuntimeError once it was given back: CUDA would take a stale address at its word."""
        if not self._handle:
            raise RuntimeError("{} was already called for this handle".format(self._release))
        return self._handle

    def close(self) -> None:
        """Gives it back; a second time does nothing."""
        handle, self._handle = self._handle, 0
        if handle:
            self._cudart._call(self._release, handle)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.close()
        except CudaError:
            if kind is None:  # after a kernel's fault every call fails; the first error is the one to show
                raise


class DeviceBuffer(_Held):
    """Device memory of `nbytes` bytes at `handle`."""

    def __init__(self, cudart: Cudart, nbytes: int) -> None:
        super().__init__(cudart, cudart.malloc(nbytes), "cudaFree")
        self.nbytes = nbytes


class Stream(_Held):
    """A stream of its own, never the default one."""

    def __init__(self, cudart: Cudart) -> None:
        super().__init__(cudart, cudart._create("cudaStreamCreate"), "cudaStreamDestroy")

    def synchronize(self) -> None:
        self._cudart._call("cudaStreamSynchronize", self.handle)

    def begin_capture(self) -> None:
        """What is queued from here to `end_capture` is recorded and not run."""
        self._cudart._call("cudaStreamBeginCapture", self.handle, _THREAD_LOCAL_CAPTURE)

    def end_capture(self) -> "Graph":
        """What was recorded, ready to be launched.

        Raises:
            CudaError: something was queued that cannot be captured.
        """
        graph = ctypes.c_void_p()
        self._cudart._call("cudaStreamEndCapture", self.handle, ctypes.byref(graph))
        return Graph(self._cudart, graph.value or 0)


class Event(_Held):
    """A point in a stream's time."""

    def __init__(self, cudart: Cudart) -> None:
        super().__init__(cudart, cudart._create("cudaEventCreate"), "cudaEventDestroy")

    def record(self, stream: Stream) -> None:
        self._cudart._call("cudaEventRecord", self.handle, stream.handle)

    def synchronize(self) -> None:
        self._cudart._call("cudaEventSynchronize", self.handle)

    def milliseconds_since(self, earlier: "Event") -> float:
        """Between two recorded events; both must have happened."""
        elapsed = ctypes.c_float()
        self._cudart._call("cudaEventElapsedTime", ctypes.byref(elapsed), earlier.handle, self.handle)
        return elapsed.value


class Graph(_Held):
    """A captured graph that can be launched; it holds the addresses and shapes of its capture."""

    def __init__(self, cudart: Cudart, graph: int) -> None:
        with _Held(cudart, graph, "cudaGraphDestroy") as captured:
            super().__init__(cudart, _instantiated(cudart, captured.handle), "cudaGraphExecDestroy")

    def launch(self, stream: Stream) -> None:
        self._cudart._call("cudaGraphLaunch", self.handle, stream.handle)


def _instantiated(cudart: Cudart, graph: int) -> int:
    handle = ctypes.c_void_p()
    if hasattr(cudart._library, _INSTANTIATE_WITH_FLAGS[0]):
        cudart._call(_INSTANTIATE_WITH_FLAGS[0], ctypes.byref(handle), graph, 0)
    else:
        cudart._call(_INSTANTIATE_10_2[0], ctypes.byref(handle), graph, None, None, 0)
    return handle.value or 0


def candidates(root: str = "/") -> Iterator[str]:
    """Where libcudart may be, best first: names for the loader, the toolkit's folders, LD_LIBRARY_PATH, pip's."""
    for name in _NAMES:
        yield name
    toolkit = os.path.join(root, "usr", "local", "cuda")
    folders = [os.path.join(toolkit, "lib64")]
    folders += _newest_first(os.path.join(toolkit + "*", "lib64"))
    folders += _newest_first(os.path.join(toolkit + "*", "targets", "*", "lib"))
    folders += _newest_first(os.path.join(toolkit + "*", "lib"))
    folders += [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    for entry in filter(None, sys.path):  # an empty one is the current folder, which is nobody's package
        folders += _newest_first(os.path.join(glob.escape(entry), "nvidia", "*", "lib"))
    seen: Set[str] = set()
    for folder in folders:
        for file in _newest_first(os.path.join(glob.escape(folder), "libcudart.so*")):
            real = os.path.realpath(file)
            if real not in seen:
                seen.add(real)
                yield file


def _newest_first(pattern: str) -> List[str]:
    """Paths of a pattern, higher numbers first: cuda-13.0 before cuda-9.0."""
    return sorted(glob.glob(pattern), key=lambda path: [int(part) for part in re.findall(r"\d+", path)], reverse=True)


def _load(asked: Optional[str]) -> Tuple[Any, str]:
    """A library with every function declared, and the name by which it was loaded."""
    refused: Dict[str, str] = {}
    for candidate in [asked] if asked else candidates():
        try:
            return _declared(ctypes.CDLL(candidate)), candidate
        except OSError as error:
            refused[candidate] = str(error)
        except AttributeError as error:
            refused[candidate] = "it is no CUDA runtime: {}".format(error)
    if asked:
        raise BadRequest(
            "The CUDA runtime {} cannot be loaded: {}. Name a libcudart.so of this machine's architecture, or none, "
            "also not in {}, to have it looked for.".format(asked, refused[asked], VARIABLE)
        )
    found = ["{} ({})".format(name, reason) for name, reason in refused.items() if os.path.isabs(name)]
    raise BadRequest(
        "No CUDA runtime: the loader knows none of {}, and {}. On a Jetson it comes with JetPack (cuda-cudart); "
        "on a desktop with `pip install nvidia-cuda-runtime-cu12`. Where it is elsewhere, name the file in {}.".format(
            ", ".join(_NAMES),
            "what was found does not load: {}".format("; ".join(found))
            if found
            else "/usr/local/cuda*, LD_LIBRARY_PATH and Python's packages have no libcudart.so",
            VARIABLE,
        )
    )


def _declared(library: Any) -> Any:
    """Raises AttributeError where a function is missing."""
    signatures = list(_SIGNATURES)
    signatures.append(_INSTANTIATE_WITH_FLAGS if hasattr(library, _INSTANTIATE_WITH_FLAGS[0]) else _INSTANTIATE_10_2)
    for name, arguments in signatures:
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int
    library.cudaGetErrorString.argtypes = (ctypes.c_int,)
    library.cudaGetErrorString.restype = ctypes.c_char_p
    return library
