"""Running a TensorRT engine: one code path from 8.0 to 11, and for TensorRT-RTX.

Names, types and sizes come from the engine, never from the ONNX file: before
9.0 a graph's int64 input is an int32 input of its engine, with half the bytes.
"""

from contextlib import ExitStack
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .cudart import Cudart, DeviceBuffer, Stream
from .errors import BadRequest, DeployAttnError
from .tensorrt_module import init_plugins, make_logger, title, version
from .tensors import Tensor, shape_text

_PROFILE = 0
# TensorRT's own `nptype` fails for BOOL on numpy >= 1.24 before 8.5, and for what numpy lacks.
_DTYPES = (
    ("FLOAT", "float32"),
    ("HALF", "float16"),
    ("INT8", "int8"),
    ("INT32", "int32"),
    ("BOOL", "bool"),
    ("UINT8", "uint8"),
    ("INT64", "int64"),
)
_SERIOUS = ("ERROR", "INTERNAL_ERROR")
_MOST_MESSAGES = 4

_Shape = Tuple[int, ...]


class TensorRtEngine:
    """An engine, loaded: a context manager over device memory, a stream and TensorRT's objects.

    For one thread. `infer` is `bind`, `enqueue` and `fetch`; apart they let a
    caller time or capture the execution alone.

    Args:
        content: the engine as its file holds it.
        trt: the module `tensorrt` or `tensorrt_rtx`.
        version_compatible: it was built to be, so code inside it must be
            allowed to run on the host; for engines of your own only.
    """

    def __init__(self, content: bytes, trt: Any, cudart: Cudart, version_compatible: bool = False) -> None:
        self._content = content
        self._trt = trt
        self._cudart = cudart
        self._version_compatible = version_compatible
        self._messages: List[Tuple[str, str]] = []
        self._held = ExitStack()
        self._places: Optional[Dict[str, Any]] = None
        self._logger: Any = None
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._io: Any = None
        self.inputs: Tuple[Tensor, ...] = ()
        self.outputs: Tuple[Tensor, ...] = ()

    def __enter__(self) -> "TensorRtEngine":
        """Loads the engine.

        Raises:
            BadRequest: the bytes are no engine for this TensorRT and GPU, or
                it has inputs or outputs that cannot be served.
            CudaError: no GPU, or not enough memory.
        """
        with ExitStack() as held:
            # Given back in reverse: the context, the engine, the runtime, the logger, device memory, the stream.
            self._stream: Stream = held.enter_context(self._cudart.stream())
            self._memory: _Memory = held.enter_context(_Memory(self._cudart))
            for name in ("_logger", "_runtime", "_engine", "_context", "_io", "_places"):
                held.callback(setattr, self, name, None)
            self._load()
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._held.__exit__(kind, error, trace)

    @property
    def stream(self) -> Stream:
        """The stream that everything of this engine runs on."""
        return self._stream

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """The outputs by name, in new arrays.

        Raises:
            BadRequest: an input is missing, unknown, of another type, or its
                shape is outside what the engine was built for.
            DeployAttnError: TensorRT or CUDA failed.
        """
        self.bind(feeds)
        self.enqueue()
        return self.fetch()

    def narrowed(self, name: str, array: np.ndarray) -> np.ndarray:
        """An int64 array as int32 where that is what the engine takes; anything else as it is.

        Raises:
            BadRequest: a value has no place in int32.
        """
        wanted = {tensor.name: tensor.dtype for tensor in self.inputs}.get(name)
        if wanted != "int32" or array.dtype != np.int64:
            return array
        limits = np.iinfo(np.int32)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise BadRequest(
                "Input {!r} holds values from {} to {}; the engine takes int32, as TensorRT before 9.0 does for int64. "
                "Keep to {} to {}.".format(name, array.min(), array.max(), limits.min, limits.max)
            )
        return array.astype(np.int32)

    def bind(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Sets shapes, makes room, and queues the inputs' way to the device; raises as `infer`."""
        if self._io is None:
            raise RuntimeError("the engine is not loaded: use it as `with engine:`")
        arrays = self._checked(feeds)
        del self._messages[:]
        for tensor in self.inputs:
            if None in tensor.shape and not self._io.set_shape(tensor.name, arrays[tensor.name].shape):
                raise BadRequest(
                    "TensorRT refuses shape {} for input {!r}{}.".format(
                        shape_text(arrays[tensor.name].shape), tensor.name, self._said()
                    )
                )
        for name, array in arrays.items():
            address = self._memory.address(name, array.nbytes)
            self._cudart.copy_to_device(address, array.ctypes.data, array.nbytes, self._stream.handle)
            self._io.set_address(name, address)
        self._places = {tensor.name: self._placed(tensor) for tensor in self.outputs}
        self._stream.synchronize()  # `arrays` may be copies of the feeds, and end here

    def enqueue(self) -> None:
        """Queues one execution on `stream`, and does not wait for it."""
        del self._messages[:]
        if not self._io.execute(self._stream.handle):
            raise DeployAttnError("TensorRT could not run the engine{}.".format(self._said()))

    def fetch(self) -> Dict[str, np.ndarray]:
        """Waits, and brings the outputs back."""
        if self._places is None:
            raise RuntimeError("nothing was bound: call `bind` and `enqueue` first")
        if any(isinstance(place, _GrowingOutput) for place in self._places.values()):
            self._stream.synchronize()  # only then are the shapes known
        outputs = {}
        for tensor in self.outputs:
            place = self._places[tensor.name]
            array = np.empty(place.shape, dtype=tensor.dtype)
            self._cudart.copy_to_host(array.ctypes.data, place.address, array.nbytes, self._stream.handle)
            outputs[tensor.name] = array
        self._stream.synchronize()
        return outputs

    def _load(self) -> None:
        trt = self._trt
        del self._messages[:]
        self._logger = make_logger(trt, self._messages)
        init_plugins(trt, self._logger)
        self._runtime = self._started()
        if self._version_compatible and hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True
        self._engine = self._deserialized()
        self._context = self._engine.create_execution_context()
        if self._context is None:
            free, total = self._cudart.mem_info()
            raise DeployAttnError(
                "TensorRT could not make room to run the engine: the GPU has {} of {} MiB free{}. End what else holds "
                "GPU memory, or build with a smaller workspace or smaller shapes.".format(
                    free >> 20, total >> 20, self._said()
                )
            )
        if _has_tensors(trt):
            self._io = _Tensors(trt, self._engine, self._context)
        else:
            self._io = _Bindings(self._engine, self._context)
        _choose_profile(self._context, self._stream)
        names = self._io.names()
        self.inputs = tuple(self._tensor(name) for name in names if self._io.is_input(name))
        self.outputs = tuple(self._tensor(name) for name in names if not self._io.is_input(name))

    def _started(self) -> Any:
        try:
            return self._trt.Runtime(self._logger)
        except (TypeError, RuntimeError) as error:  # pybind11's words for a constructor that gave nothing
            raise BadRequest(
                "{} cannot start its runtime{}. `deploy-attn doctor` shows what is there.".format(
                    self._product(), self._said() or ": {}".format(error)
                )
            ) from error

    def _deserialized(self) -> Any:
        try:
            engine = self._runtime.deserialize_cuda_engine(self._content)
        except RuntimeError as error:
            self._messages.append(("ERROR", str(error)))
            engine = None
        if engine is None:
            raise BadRequest(
                "{} on compute capability {} cannot load this engine of {} bytes{}. It is corrupt, or was "
                "built by another TensorRT or for another GPU: build it again on this machine with `deploy-attn "
                "build`.".format(self._product(), self._cudart.compute_capability(), len(self._content), self._said())
            )
        return engine

    def _tensor(self, name: str) -> Tensor:
        dtype = self._io.dtype(name)
        known = [ours for theirs, ours in _DTYPES if getattr(self._trt.DataType, theirs, None) == dtype]
        if not known:
            raise BadRequest(
                "The engine's tensor {!r} is of type {}, which numpy does not have. Build it with inputs and outputs "
                "in FP32.".format(name, dtype)
            )
        if self._io.is_on_host(name):
            raise BadRequest(
                "The engine's tensor {!r} is a shape that TensorRT keeps on the host, which is not served. Export the "
                "graph with that shape fixed.".format(name)
            )
        return Tensor(name, known[0], tuple(None if extent < 0 else int(extent) for extent in self._io.shape(name)))

    def _checked(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """The feeds as the engine takes them: dense, and int64 narrowed where it must be."""
        expected = {tensor.name for tensor in self.inputs}
        if set(feeds) != expected:
            raise BadRequest("The engine takes inputs {}, got {}.".format(sorted(expected), sorted(feeds)))
        arrays = {}
        for tensor in self.inputs:
            array = np.require(self.narrowed(tensor.name, feeds[tensor.name]), requirements=["C"])
            if array.dtype != tensor.dtype or not tensor.takes(array.shape):
                raise BadRequest(tensor.mismatch(feeds[tensor.name]))
            if None in tensor.shape:
                self._check_range(tensor.name, array.shape)
            arrays[tensor.name] = array
        return arrays

    def _check_range(self, name: str, shape: _Shape) -> None:
        lowest, _, highest = [tuple(bound) for bound in self._io.profile(name)]
        if not all(low <= extent <= high for low, extent, high in zip(lowest, shape, highest)):
            raise BadRequest(
                "Input {!r} is {}; the engine was built for {} to {}. Keep to that range, or build it with a profile "
                "that covers more.".format(name, shape_text(shape), shape_text(lowest), shape_text(highest))
            )

    def _placed(self, tensor: Tensor) -> Any:
        """Where an output goes: sized by the context, which knows it once the inputs' shapes are set."""
        shape = tuple(int(extent) for extent in self._io.shape_now(tensor.name))
        if all(extent >= 0 for extent in shape):
            nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize
            place: Any = _Output(self._memory.address(tensor.name, nbytes), shape)
            self._io.set_address(tensor.name, place.address)
            return place
        if not hasattr(self._trt, "IOutputAllocator"):
            raise BadRequest(
                "The size of output {!r} depends on values ({}), which takes TensorRT 8.5 or newer. Export the graph "
                "with an output of fixed size.".format(tensor.name, shape_text(tensor.shape))
            )
        place = _GrowingOutput(tensor.name, self._memory)
        self._io.set_allocator(tensor.name, _allocator(self._trt, place))
        return place

    def _product(self) -> str:
        return "{} {}".format(title(self._trt.__name__), version(self._trt))

    def _said(self) -> str:
        """What TensorRT logged as an error, as the rest of a sentence; nothing where it is silent."""
        said = [" ".join(text.split()) for severity, text in self._messages if severity in _SERIOUS]
        return ": {}".format("; ".join(said[-_MOST_MESSAGES:]).rstrip(".")) if said else ""


class _Memory:
    """Device memory by tensor name, kept between inferences and grown when one needs more."""

    def __init__(self, cudart: Cudart) -> None:
        self._cudart = cudart
        self._buffers: Dict[str, DeviceBuffer] = {}

    def address(self, name: str, nbytes: int) -> int:
        held = self._buffers.get(name)
        if held is None or held.nbytes < nbytes:
            if held is not None:
                del self._buffers[name]
                held.close()  # first, so that both never stand side by side on a small board
            self._buffers[name] = held = self._cudart.buffer(nbytes)
        return held.handle

    def __enter__(self) -> "_Memory":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        every_one = ExitStack()  # one that CUDA does not take back keeps none of the others
        for buffer in self._buffers.values():
            every_one.push(buffer)
        self._buffers = {}
        every_one.__exit__(kind, error, trace)


class _Output:
    """Where an output of known size lies."""

    def __init__(self, address: int, shape: _Shape) -> None:
        self.address = address
        self.shape = shape


class _GrowingOutput:
    """Where an output lies whose size TensorRT finds while it runs."""

    def __init__(self, name: str, memory: _Memory) -> None:
        self._name = name
        self._memory = memory
        self.address = 0
        self.shape: _Shape = ()

    def grow(self, nbytes: int) -> int:
        self.address = self._memory.address(self._name, nbytes)
        return self.address


def _allocator(trt: Any, place: _GrowingOutput) -> Any:
    class Allocator(trt.IOutputAllocator):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)  # pybind11 wants it called by name

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            return place.grow(size)

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return place.grow(size)

        def notify_shape(self, name: str, shape: Sequence[int]) -> None:
            place.shape = tuple(int(extent) for extent in shape)

    return Allocator()


class _Tensors:
    """Inputs and outputs by name: 8.5 and newer."""

    def __init__(self, trt: Any, engine: Any, context: Any) -> None:
        self._trt = trt
        self._engine = engine
        self._context = context

    def names(self) -> List[str]:
        return [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]

    def is_input(self, name: str) -> bool:
        return bool(self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT)

    def is_on_host(self, name: str) -> bool:
        return bool(self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST)

    def dtype(self, name: str) -> Any:
        return self._engine.get_tensor_dtype(name)

    def shape(self, name: str) -> Any:
        return self._engine.get_tensor_shape(name)

    def shape_now(self, name: str) -> Any:
        return self._context.get_tensor_shape(name)

    def profile(self, name: str) -> Any:
        return self._engine.get_tensor_profile_shape(name, _PROFILE)

    def set_shape(self, name: str, shape: _Shape) -> bool:
        return bool(self._context.set_input_shape(name, shape))

    def set_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise DeployAttnError("TensorRT refuses the address of tensor {!r}.".format(name))

    def set_allocator(self, name: str, allocator: Any) -> None:
        if not self._context.set_output_allocator(name, allocator):
            raise DeployAttnError("TensorRT refuses an allocator for output {!r}.".format(name))

    def execute(self, stream: int) -> bool:
        return bool(self._context.execute_async_v3(stream))


class _Bindings:
    """Inputs and outputs by position: before 8.5."""

    def __init__(self, engine: Any, context: Any) -> None:
        self._engine = engine
        self._context = context
        # An engine of several profiles lists its bindings once for each; those of profile 0 come first.
        count = engine.num_bindings // max(engine.num_optimization_profiles, 1)
        self._positions = {engine.get_binding_name(index): index for index in range(count)}
        self._addresses = [0] * engine.num_bindings

    def names(self) -> List[str]:
        return sorted(self._positions, key=lambda name: self._positions[name])

    def is_input(self, name: str) -> bool:
        return bool(self._engine.binding_is_input(self._positions[name]))

    def is_on_host(self, name: str) -> bool:
        return bool(self._engine.is_shape_binding(self._positions[name]))

    def dtype(self, name: str) -> Any:
        return self._engine.get_binding_dtype(self._positions[name])

    def shape(self, name: str) -> Any:
        return self._engine.get_binding_shape(self._positions[name])

    def shape_now(self, name: str) -> Any:
        return self._context.get_binding_shape(self._positions[name])

    def profile(self, name: str) -> Any:
        return self._engine.get_profile_shape(_PROFILE, self._positions[name])

    def set_shape(self, name: str, shape: _Shape) -> bool:
        return bool(self._context.set_binding_shape(self._positions[name], shape))

    def set_address(self, name: str, address: int) -> None:
        self._addresses[self._positions[name]] = address

    def execute(self, stream: int) -> bool:
        return bool(self._context.execute_async_v2(self._addresses, stream))


def _has_tensors(trt: Any) -> bool:
    return hasattr(trt.IExecutionContext, "execute_async_v3") and hasattr(trt.ICudaEngine, "num_io_tensors")


def _choose_profile(context: Any, stream: Stream) -> None:
    """The first context of an engine has profile 0 from the start; any later one may have none."""
    if context.active_optimization_profile != _PROFILE:
        context.set_optimization_profile_async(_PROFILE, stream.handle)
        stream.synchronize()
