"""The half of a fake TensorRT that runs engines: it reads and writes through the pointers that it is given.

As strict as TensorRT where a mistake would corrupt memory, or stricter: a
stream of 0, an address that is no device memory, a shape that was not set.

What an engine computes is its ONNX graph, in onnxruntime in FP32, or, where the
header has `multiples`, {output: [input, factor]}: that takes numpy alone.

Keys of the header beyond those that `builder` writes: `multiples`; `no_context`;
`active_profile` (what a context starts with); in `io`, `host` and `data_dependent`.
"""

import ctypes
import os
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .builder import NO_GPU, EngineInspector, Member, Strict, enum, faults, say, split_engine

_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT64": "int64",
}
_Shape = Tuple[int, ...]


def runtime_names(version: str) -> Dict[str, Any]:
    """The classes of a version's module by name: "8.2", "10"."""
    number = _numbers(version)
    by_name, by_position = number >= (8, 5), number < (9,)
    engines: List[Any] = ([_NamedEngine] if by_name else []) + ([_PositionalEngine] if by_position else [])
    contexts: List[Any] = ([_NamedContext] if by_name else []) + ([_PositionalContext] if by_position else [])
    released: List[str] = []
    engine = type("ICudaEngine", tuple(engines), _engine_names(number))
    context = type("IExecutionContext", tuple(contexts), {})
    runtime = {"_version": number, "_released": released, "_engine": engine, "_context": context}
    if number >= (8, 6):
        runtime["engine_host_code_allowed"] = False
    names: Dict[str, Any] = {
        "Runtime": type("Runtime", (_Runtime,), runtime),
        "ICudaEngine": engine,
        "IExecutionContext": context,
        "TensorLocation": enum("TensorLocation", ["DEVICE", "HOST"]),
    }
    if by_name:
        names["TensorIOMode"] = enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
        names["IOutputAllocator"] = OutputAllocator
    return names


def _engine_names(number: Tuple[int, ...]) -> Dict[str, Any]:
    names: Dict[str, Any] = {}
    if number >= (8, 2):
        names["create_engine_inspector"] = lambda engine: EngineInspector(engine._header, engine._runtime._released)
    if number < (11,):
        names["device_memory_size"] = 1 << 20
    if number >= (11,):
        names["device_memory_size_v2"] = 1 << 20
    return names


class OutputAllocator:
    """What a caller's own allocator derives from; pybind11 refuses one whose base was not initialised."""

    def __init__(self) -> None:
        self._initialised = True


class _Runtime(Strict):
    _version: Tuple[int, ...] = ()
    _released: List[str] = []
    _engine: Any = None
    _context: Any = None

    def __init__(self, logger: Any) -> None:
        if NO_GPU in faults():
            say(logger, "ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        if not getattr(logger, "_initialised", False):
            raise TypeError("ILogger.__init__() must be called when overriding __init__")
        self._logger = logger

    def __del__(self) -> None:
        self._released.append("runtime")

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        try:
            header, model = split_engine(bytes(memoryview(serialized_engine)))
            refusal = self._refusal(header)
        except (ValueError, KeyError, TypeError):
            refusal = "Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed."
        if refusal:
            say(self._logger, "ERROR", refusal)
            return None
        return self._engine(self, header, model)

    def _refusal(self, header: Mapping[str, Any]) -> str:
        """Why an engine is not loaded here; nothing where it is. Raises KeyError for the header of no engine."""
        built_by, _ = _numbers(header["version"]), header["io"]
        compatible = bool(header.get("version_compatible"))
        if compatible and not getattr(self, "engine_host_code_allowed", False):
            return "Cannot deserialize engine with lean runtime: host code is not allowed."
        differs = built_by[: len(self._version)] != self._version
        if differs and not (compatible and built_by <= self._version):
            return (
                "The engine plan file is not compatible with this version of TensorRT, expecting library version "
                "{} got {}".format(".".join(map(str, self._version)), header["version"])
            )
        here, there = os.environ.get("STUB_CUDART_COMPUTE_CAPABILITY"), header.get("compute_capability")
        if here and there and here != there and not header.get("hardware_compatible"):
            return (
                "The engine plan file is generated on an incompatible device, expecting compute {} got compute {}, "
                "please rebuild.".format(here, there)
            )
        return ""


class _Engine(Strict):
    """What every version has."""

    def __init__(self, runtime: Any, header: Mapping[str, Any], model: bytes) -> None:
        self._runtime, self._header, self._model = runtime, header, model
        self._io: Dict[str, Any] = {io["name"]: io for io in header["io"]}
        self._profiles: List[Any] = header.get("profiles") or [{}]

    def __del__(self) -> None:
        self._runtime._released.append("engine")

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    @property
    def num_layers(self) -> int:
        return len(self._header.get("layers", ())) or 1

    def create_execution_context(self) -> Any:
        if self._header.get("no_context"):
            say(self._runtime._logger, "ERROR", "Requested amount of GPU memory could not be allocated.")
            return None
        return self._runtime._context(self)

    def _is_input(self, name: str) -> bool:
        return bool(self._io[name]["mode"] == "INPUT")

    def _shape(self, name: str) -> _Shape:
        return tuple(-1 if extent is None else int(extent) for extent in self._io[name]["shape"])

    def _type(self, name: str) -> str:
        return str(self._io[name]["dtype"])

    def _range(self, name: str, index: int) -> Sequence[_Shape]:
        bounds = self._profiles[index].get(name)
        return [tuple(bound) for bound in bounds] if bounds else [self._shape(name)] * 3


class _NamedEngine(_Engine):
    """8.5 and newer."""

    @property
    def num_io_tensors(self) -> int:
        return len(self._io)

    def get_tensor_name(self, index: int) -> str:
        return list(self._io)[index]

    def get_tensor_mode(self, name: str) -> Member:
        return Member("INPUT" if self._is_input(name) else "OUTPUT", 0)

    def get_tensor_location(self, name: str) -> Member:
        return Member("HOST" if self._io[name].get("host") else "DEVICE", 0)

    def get_tensor_dtype(self, name: str) -> Member:
        return Member(self._type(name), 0)

    def get_tensor_shape(self, name: str) -> _Shape:
        return self._shape(name)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[_Shape]:
        return self._range(name, profile_index)


class _PositionalEngine(_Engine):
    """Up to 8.6. Bindings are listed once for each profile."""

    @property
    def num_bindings(self) -> int:
        return len(self._io) * len(self._profiles)

    def _name(self, index: int) -> str:
        if not 0 <= index < self.num_bindings:
            raise IndexError("binding {} of {}".format(index, self.num_bindings))
        return list(self._io)[index % len(self._io)]

    def get_binding_name(self, index: int) -> str:
        profile = index // len(self._io)
        return self._name(index) + (" [profile {}]".format(profile) if profile else "")

    def get_binding_index(self, name: str) -> int:
        return list(self._io).index(name) if name in self._io else -1

    def binding_is_input(self, index: int) -> bool:
        return self._is_input(self._name(index))

    def is_shape_binding(self, binding: int) -> bool:
        return bool(self._io[self._name(binding)].get("host"))

    def get_binding_dtype(self, index: int) -> Member:
        return Member(self._type(self._name(index)), 0)

    def get_binding_shape(self, index: int) -> _Shape:
        return self._shape(self._name(index))

    def get_profile_shape(self, profile_index: int, binding: int) -> Sequence[_Shape]:
        return self._range(self._name(binding), profile_index)


class _Context(Strict):
    """What every version has."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._shapes: Dict[str, _Shape] = {}
        self._addresses: Dict[str, int] = {}
        self._allocators: Dict[str, Any] = {}
        self._inferred: Dict[Any, Dict[str, _Shape]] = {}
        self._session: Any = None
        self._profile = engine._header.get("active_profile", 0)

    def __del__(self) -> None:
        self._engine._runtime._released.append("context")

    @property
    def active_optimization_profile(self) -> int:
        return int(self._profile)

    @property
    def all_binding_shapes_specified(self) -> bool:
        return not self._missing()

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not stream_handle or not 0 <= profile_index < self._engine.num_optimization_profiles:
            raise RuntimeError("Error in set optimization profile async.")
        self._profile = profile_index
        return True

    def execute_v2(self, bindings: Sequence[int]) -> bool:
        raise NotImplementedError("the fake runs on a stream")

    def _refuse(self, text: str) -> bool:
        say(self._engine._runtime._logger, "ERROR", text)
        return False

    def _inputs(self) -> List[str]:
        return [name for name in self._engine._io if self._engine._is_input(name)]

    def _missing(self) -> List[str]:
        return [name for name in self._inputs() if -1 in self._shape(name)]

    def _shape(self, name: str) -> _Shape:
        shape: _Shape = self._shapes.get(name, self._engine._shape(name))
        return shape

    def _dtype(self, name: str) -> "np.dtype[Any]":
        return np.dtype(_TYPES[self._engine._type(name)])

    def _set_shape(self, name: str, shape: Sequence[int]) -> bool:
        if not all(type(extent) is int for extent in shape):
            raise TypeError("incompatible function arguments: {!r}".format(shape))
        if self._profile != 0:
            return self._refuse("Must select an optimization profile first.")
        low, _, high = self._engine._range(name, 0)
        fits = len(low) == len(shape) and all(a <= b <= c for a, b, c in zip(low, shape, high))
        if not fits or not self._engine._is_input(name):
            return self._refuse("Dimensions {} of {} are outside the profile.".format(shape, name))
        self._shapes[name] = tuple(shape)
        return True

    def _shape_now(self, name: str) -> _Shape:
        shape = self._shape(name)
        if self._engine._is_input(name) or -1 not in shape or self._missing() or self._depends_on_data(name):
            return shape
        key = tuple(sorted(self._shapes.items()))
        if key not in self._inferred:
            zeros = {source: np.zeros(self._shape(source), self._dtype(source)) for source in self._inputs()}
            self._inferred = {key: {output: array.shape for output, array in self._computed(zeros).items()}}
        return self._inferred[key][name]

    def _depends_on_data(self, name: str) -> bool:
        return bool(self._engine._io[name].get("data_dependent"))

    def _run(self, stream: int, addresses: Mapping[str, int]) -> bool:
        """Executes; False and a message where TensorRT would refuse, or write where it must not."""
        if not stream:
            return self._refuse("The default stream was given.")
        if self._profile != 0 or self._missing():
            return self._refuse("Shapes of {} were not set.".format(self._missing()))
        inputs = {}
        for name in self._inputs():
            shape, dtype = self._shape(name), self._dtype(name)
            nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            if not _is_device_memory(addresses.get(name), nbytes):
                return self._refuse("Input {} has no device memory of {} bytes.".format(name, nbytes))
            raw = ctypes.string_at(addresses[name], nbytes)
            # Not frombuffer: that takes no empty bytes, which an input with an extent of 0 has.
            inputs[name] = np.ndarray(shape, dtype, raw) if raw else np.zeros(shape, dtype)
        for name, array in self._computed(inputs).items():
            address = self._allocated(name, array, stream) if self._depends_on_data(name) else addresses.get(name)
            if not _is_device_memory(address, array.nbytes):
                return self._refuse("Output {} has no device memory of {} bytes.".format(name, array.nbytes))
            ctypes.memmove(address, array.ctypes.data, array.nbytes)  # type: ignore[arg-type]
        return True

    def _allocated(self, name: str, array: Any, stream: int) -> Optional[int]:
        allocator = self._allocators.get(name)
        if allocator is None:
            return None
        if self._engine._runtime._version >= (10,):
            address = allocator.reallocate_output_async(name, 0, array.nbytes, 256, stream)
        else:
            address = allocator.reallocate_output(name, 0, array.nbytes, 256)
        allocator.notify_shape(name, array.shape)
        return int(address)

    def _computed(self, inputs: Mapping[str, Any]) -> Dict[str, Any]:
        multiples = self._engine._header.get("multiples")
        if multiples:
            found = {output: inputs[source] * factor for output, (source, factor) in multiples.items()}
        else:
            found = self._graph_outputs(inputs)
        return {
            name: np.require(found[name].astype(self._dtype(name)), requirements=["C"])
            for name in self._engine._io
            if not self._engine._is_input(name)
        }

    def _graph_outputs(self, inputs: Mapping[str, Any]) -> Dict[str, Any]:
        import onnxruntime

        if self._session is None:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.intra_op_num_threads = 1
            providers = ["CPUExecutionProvider"]
            self._session = onnxruntime.InferenceSession(self._engine._model, options, providers=providers)
        types = {node.name: node.type for node in self._session.get_inputs()}
        wide = {
            name: array.astype(np.int64) if types[name] == "tensor(int64)" else array for name, array in inputs.items()
        }
        names = [node.name for node in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, wide)))


class _NamedContext(_Context):
    """8.5 and newer."""

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        return self._set_shape(name, shape)

    def get_tensor_shape(self, name: str) -> _Shape:
        return self._shape_now(name)

    def infer_shapes(self) -> List[str]:
        return self._missing()

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._io:
            return self._refuse("There is no tensor {}.".format(name))
        self._addresses[name] = memory
        return True

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        if not getattr(output_allocator, "_initialised", False):
            raise TypeError("IOutputAllocator.__init__() must be called when overriding __init__")
        self._allocators[name] = output_allocator
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        return self._run(stream_handle, self._addresses)


class _PositionalContext(_Context):
    """Up to 8.6."""

    def set_binding_shape(self, binding: int, shape: Sequence[int]) -> bool:
        return self._set_shape(self._engine._name(binding), shape)

    def get_binding_shape(self, binding: int) -> _Shape:
        return self._shape_now(self._engine._name(binding))

    def execute_async_v2(self, bindings: Sequence[int], stream_handle: int) -> bool:
        if len(bindings) != self._engine.num_bindings:
            return self._refuse("The engine has {} bindings, got {}.".format(self._engine.num_bindings, len(bindings)))
        return self._run(stream_handle, dict(zip(self._engine._io, bindings)))


def _numbers(version: object) -> Tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", str(version)))


def _is_device_memory(address: Optional[int], nbytes: int) -> bool:
    """Whether the stub of libcudart gave these bytes; without the stub, whether there is an address at all."""
    path = os.environ.get("DEPLOY_ATTN_CUDART")
    if not address or not path:
        return bool(address)
    inside = ctypes.CDLL(path).stub_holds
    inside.argtypes, inside.restype = (ctypes.c_void_p, ctypes.c_size_t), ctypes.c_int
    return bool(inside(address, nbytes))
