"""The half of a fake TensorRT that builds: builder, network, parser, settings, and the engine inspector.

A network's layers are the ONNX nodes, with an unnamed Shuffle before each
elementwise node that takes a constant, as the real parser has them. The engine
fuses an activation into the layer before it, and has a copy wherever a type
changes. Types are computed as TensorRT would: strongly typed from the graph,
weakly typed from flags and layers.
"""

import json
import os
import signal
import sys
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .onnx_reader import Node, read_graph

MAGIC = b"FAKE-TRT\n"
CACHE = b"FAKE-CACHE "
FAULTS = "FAKE_TENSORRT"
KILLED, CRASHED, LEFT, RAISED = "killed", "crashed", "left", "raised"  # how the process ends during the build
NO_GPU, OUT_OF_MEMORY, SLOW, ENDLESS = "no-gpu", "out-of-memory", "slow", "endless"
GARBAGE, NO_OUTCOME, CHATTY = "garbage", "no-outcome", "chatty"  # what the child writes
SILENTLY_FP32, IGNORES_PLAN, FOREIGN, UNKNOWN_TYPE = "silently-fp32", "ignores-plan", "foreign-node", "unknown-type"
NAMES_ONLY, NOT_SHOWN, NO_LOG, CANNOT_LOAD = "names-only", "not-shown", "no-log", "cannot-load"

_KINDS = {
    "Conv": "CONVOLUTION",
    "Relu": "ACTIVATION",
    "Sigmoid": "ACTIVATION",
    "Tanh": "ACTIVATION",
    "HardSigmoid": "ACTIVATION",
    "Softmax": "SOFTMAX",
    "Shape": "SHAPE",
    "Constant": "CONSTANT",
    "Reshape": "SHUFFLE",
    "Transpose": "SHUFFLE",
    "MatMul": "MATRIX_MULTIPLY",
    "Concat": "CONCATENATION",
    "Gather": "GATHER",
    "TopK": "TOPK",
}
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")
_REFUSED = ("NoSuchOperator", "Det")
_LOG_TYPES = {"FLOAT": "Float", "HALF": "Half", "INT32": "Int32", "INT64": "Int64", "BOOL": "Bool", "INT8": "Int8"}
_FORMATS = {
    "FLOAT": "Row major linear FP32",
    "HALF": "Row major linear FP16 format",
    "INT32": "Row major linear Int32",
    "INT64": "Row major linear Int64 format",
    "BOOL": "Row major linear BOOL",
    "INT8": "Row major Int8 format",
}


def faults() -> Sequence[str]:
    return os.environ.get(FAULTS, "").split(",")


def engine_bytes(header: Mapping[str, Any], onnx: bytes) -> bytes:
    return MAGIC + json.dumps(header, sort_keys=True).encode("ascii") + b"\n" + onnx


def split_engine(content: bytes) -> Tuple[Dict[str, Any], bytes]:
    """(header, ONNX file); raises ValueError for bytes that are no engine."""
    if not content.startswith(MAGIC):
        raise ValueError("not a fake engine")
    line, _, onnx = content[len(MAGIC) :].partition(b"\n")
    return json.loads(line.decode("ascii")), onnx


class Member:
    """A member of an enum: equal to any of its name, and with a number where one is needed."""

    def __init__(self, name: str, value: int) -> None:
        self.name = name
        self.value = value

    def __int__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return getattr(other, "name", None) == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return "<{}>".format(self.name)


def enum(kind: str, names: Sequence[str]) -> Any:
    members = {name: Member(name, value) for value, name in enumerate(names)}
    return type(kind, (), dict(members, __members__=members))


class Strict:
    """An object that takes no attribute beyond those of its class, as pybind11's do."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError("{} has no attribute {!r}".format(type(self).__name__, name))
        object.__setattr__(self, name, value)


class ILogger:
    def __init__(self) -> None:
        self._initialised = True


class IProgressMonitor:
    def __init__(self) -> None:
        self._initialised = True


def say(logger: Any, severity: str, text: str) -> None:
    logger.log(Member(severity, 0), text)


class Tensor(Strict):
    def __init__(self, name: str, dtype: str, is_output: bool) -> None:
        self._name, self._dtype, self._is_output = name, dtype, is_output

    @property
    def name(self) -> str:
        return self._name

    @property
    def dtype(self) -> Member:
        return Member(self._dtype, 0)

    @property
    def is_network_output(self) -> bool:
        return self._is_output

    @property
    def is_shape_tensor(self) -> bool:
        return self._dtype not in ("FLOAT", "HALF")


class Layer(Strict):
    """What a layer of every version has."""

    def __init__(self, name: str, kind: str, node: Optional[Node], inputs: Sequence[Tensor], outputs: Sequence[Tensor]):
        self._name, self._kind, self._node = name, kind, node
        self._inputs, self._outputs = list(inputs), list(outputs)
        self._precision: Optional[Member] = None
        self._output_types: Dict[int, Member] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def type(self) -> Member:
        return Member(self._kind, 0)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> Tensor:
        return self._inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self._outputs[index]


class LayerWithPrecision(Layer):
    """Up to 10."""

    @property
    def precision(self) -> Member:
        return self._precision or Member("FLOAT", 0)

    @precision.setter
    def precision(self, value: Member) -> None:
        self._precision = value

    @property
    def precision_is_set(self) -> bool:
        return self._precision is not None

    def set_output_type(self, index: int, dtype: Member) -> None:
        self._output_types[index] = dtype

    def output_type_is_set(self, index: int) -> bool:
        return index in self._output_types


class Network(Strict):
    def __init__(self, version: Any, flags: int) -> None:
        self._version, self._flags = version, flags
        self._layers: List[Layer] = []
        self._model = b""

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> Layer:
        return self._layers[index]

    def _has(self, flag: str) -> bool:
        members = self._version.network_flags
        return flag in members and bool(self._flags >> members.index(flag) & 1)


class ParserError(Strict):
    def __init__(self, place: int, node: Node) -> None:
        self._place, self._node = place, node

    def code(self) -> Member:
        return Member("UNSUPPORTED_NODE", 8)

    def desc(self) -> str:
        return "No importer registered for op: {}".format(self._node.operator)

    def node(self) -> int:
        return self._place


class ParserErrorWithNames(ParserError):
    """From 10 on."""

    def node_name(self) -> str:
        return self._node.name

    def node_operator(self) -> str:
        return self._node.operator


class OnnxParser(Strict):
    _version: Any = None

    def __init__(self, network: Network, logger: Any) -> None:
        if not getattr(logger, "_initialised", False):
            raise TypeError("ILogger.__init__() must be called when overriding __init__")
        self._network, self._logger = network, logger
        self._errors: List[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse(self, model: bytes) -> bool:
        network, version = self._network, self._version
        if version.number < (9,) and not network._has("EXPLICIT_BATCH"):
            say(self._logger, "ERROR", "Network must have been created with the explicit batch flag.")
            return False
        try:
            graph = read_graph(model)
        except ValueError:
            say(self._logger, "ERROR", "Failed to parse ONNX model.")
            return False
        if any(node.operator == "Throws" for node in graph.nodes):
            raise IndexError("Attribute not found: allowzero")
        error = ParserErrorWithNames if version.number >= (10,) else ParserError
        self._errors = [error(place, node) for place, node in enumerate(graph.nodes) if node.operator in _REFUSED]
        if self._errors:
            return False
        network._model = model
        for node in graph.nodes:
            network._layers += self._layers_of(node, graph)
        return True

    def _layers_of(self, node: Node, graph: Any) -> List[Layer]:
        tensors = [Tensor(name, graph.types[name], name in graph.outputs) for name in node.inputs if name]
        outputs = [Tensor(name, graph.types[name], name in graph.outputs) for name in node.outputs]
        before = []
        if node.operator in _ELEMENTWISE and any(name in graph.constants for name in node.inputs):
            name = "(Unnamed Layer* {}) [Shuffle]".format(len(self._network._layers))
            before.append(
                self._version.layer(name, "SHUFFLE", None, tensors[-1:], [Tensor(name + "_output", "FLOAT", False)])
            )
        kind = _KINDS.get(node.operator, "ELEMENTWISE" if node.operator in _ELEMENTWISE else "UNARY")
        if node.operator == "Cast":
            kind = "CAST" if self._version.number >= (8, 6) else "IDENTITY"
        layer = self._version.layer(node.name, kind, node, tensors, outputs)
        if kind == "IDENTITY":
            layer.set_output_type(0, Member(node.cast_to, 0))
        return before + [layer]


class TimingCache(Strict):
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content


class Profile(Strict):
    def __init__(self) -> None:
        self._shapes: Dict[str, Any] = {}

    def set_shape(self, name: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002 (TensorRT's names)
        self._shapes[name] = [list(min), list(opt), list(max)]


class Config(Strict):
    """What every version has."""

    _version: Any = None
    profiling_verbosity: Any = Member("LAYER_NAMES_ONLY", 0)

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._flags = {"TF32"}
        self._profiles: List[Profile] = []
        self._pools: Dict[str, int] = {}
        self._cache: Optional[TimingCache] = None  # until one is set, there is none to read back

    def set_flag(self, flag: Member) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Member) -> None:
        self._flags.discard(flag.name)

    def add_optimization_profile(self, profile: Profile) -> int:
        bad = any(low > high for spans in profile._shapes.values() for low, high in zip(spans[0], spans[2]))
        if bad:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Optional[TimingCache]:
        if serialized_timing_cache and not serialized_timing_cache.startswith(CACHE):
            say(self._logger, "ERROR", "Timing cache deserialization failed.")
            return None
        return TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        content = cache.serialize()
        if content and not ignore_mismatch and content.split()[1].decode() != self._version.full:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Optional[TimingCache]:
        return self._cache


class EngineLayer(NamedTuple):
    """A layer of an engine, as the header holds it: tensors are (name, type)."""

    name: str
    kind: str
    nodes: List[str]
    inputs: List[Tuple[str, str]]
    outputs: List[Tuple[str, str]]


class Builder(Strict):
    """What every version has."""

    _version: Any = None

    def __init__(self, logger: Any) -> None:
        if NO_GPU in faults():
            say(logger, "ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int = 0) -> Network:
        return Network(self._version, flags)

    def create_builder_config(self) -> Config:
        made: Config = self._version.config(self._logger)
        return made

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> Optional[bytes]:
        _misbehave()
        if not _told_progress(getattr(config, "progress_monitor", None)):
            say(self._logger, "ERROR", "The build was cancelled by the progress monitor.")
            return None
        if OUT_OF_MEMORY in faults():
            say(
                self._logger,
                "ERROR",
                "[virtualMemoryBuffer.cpp::resizePhysical::140] Error Code 2: OutOfMemory (no details)",
            )
            return None
        graph = read_graph(network._model)
        open_inputs = [name for name, shape in graph.inputs.items() if None in shape]
        if open_inputs and not config._profiles:
            say(
                self._logger,
                "ERROR",
                "Network has dynamic or shape inputs, but no optimization profile has been defined.",
            )
            return None
        layers = _engine_layers(network, config)
        header = _header(self._version, network, config, graph, layers)
        if NO_LOG not in faults():
            say(self._logger, "VERBOSE", _log(self._version, layers))
        if config._cache is not None:
            config._cache = TimingCache(CACHE + self._version.full.encode("ascii") + b" kernels")
        return engine_bytes(header, network._model)


class _Serializable:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content


class BuilderOf8(Builder):
    def build_engine(self, network: Network, config: Config) -> Optional[_Serializable]:
        content = self.build_serialized_network(network, config)
        return None if content is None else _Serializable(content)


def _misbehave() -> None:
    asked = faults()
    if CHATTY in asked:
        os.write(1, b'a library prints\n{"not": "progress"}\n\xff\xfe\n')
    if SLOW in asked:
        time.sleep(0.5)
    if ENDLESS in asked:
        with open("builder.pid", "w") as stream:
            stream.write("{}\n".format(os.getpid()))
        time.sleep(60)
    if KILLED in asked:
        os.kill(os.getpid(), signal.SIGKILL)
    if CRASHED in asked:
        os.kill(os.getpid(), signal.SIGSEGV)
    if LEFT in asked:
        sys.stderr.write("first words\nlast words of the builder\n")
        sys.stderr.flush()
        os._exit(3)
    if GARBAGE in asked or NO_OUTCOME in asked:
        if GARBAGE in asked:
            with open("outcome.json", "w") as stream:
                stream.write("[1, 2")
        os._exit(0)
    if RAISED in asked:
        raise OSError("the disk is full")


def _told_progress(monitor: Any) -> bool:
    """Whether the monitor lets the build go on."""
    if monitor is None:
        return True
    if not getattr(monitor, "_initialised", False):
        raise TypeError("IProgressMonitor.__init__() must be called when overriding __init__")
    monitor.phase_start("Building engine", None, 2)
    monitor.phase_start("Autotuning", "Building engine", 1)
    wanted = monitor.step_complete("Autotuning", 0)
    monitor.phase_finish("Autotuning")
    wanted = monitor.step_complete("Building engine", 0) and wanted
    if SLOW in faults():
        time.sleep(0.5)
    monitor.phase_finish("Building engine")
    return bool(wanted)


def _precision(layer: Layer, network: Network, config: Config) -> str:
    """The type that a layer's floats have in the engine."""
    if network._has("STRONGLY_TYPED") or network._version.number >= (11,):
        return layer._outputs[0]._dtype
    if "FP16" not in config._flags or SILENTLY_FP32 in faults():
        return "FLOAT"
    if IGNORES_PLAN in faults():
        return "HALF"
    obeys = config._flags & {"OBEY_PRECISION_CONSTRAINTS", "STRICT_TYPES"}
    return layer._precision.name if obeys and layer._precision is not None else "HALF"


def _engine_layers(network: Network, config: Config) -> List[EngineLayer]:
    narrow = network._version.number < (9,)
    made: List[EngineLayer] = []
    types: Dict[str, str] = {}
    for layer in network._layers:
        if layer._kind in ("CONSTANT", "SHAPE"):
            continue
        kind = _precision(layer, network, config)
        copies, inputs = [], []
        for place, tensor in enumerate(layer._inputs):
            name, have = tensor._name, types.get(tensor._name, tensor._dtype)
            if have in ("FLOAT", "HALF") and have != kind and layer._kind not in ("CAST", "IDENTITY"):
                copy = "Reformatted Input Tensor {} to {}".format(place, layer.name)
                what = "Reformatting CopyNode for Input Tensor {} to {}".format(place, layer.name)
                copies.append(EngineLayer(what, "Reformat", [], [(name, have)], [(copy, kind)]))
                name, have = copy, kind
            inputs.append((name, "INT32" if narrow and have == "INT64" else have))
        outputs = []
        for tensor in layer._outputs:
            have = kind if tensor._dtype in ("FLOAT", "HALF") else tensor._dtype
            have = tensor._dtype if tensor._is_output else have
            types[tensor._name] = have
            outputs.append((tensor._name, "INT32" if narrow and have == "INT64" else have))
        made += copies
        nodes = [layer._node.name] if layer._node else []
        if layer._kind == "ACTIVATION" and made and not copies and made[-1].outputs[0][0] == inputs[0][0]:
            last = made.pop()
            name = "{} + {}".format(last.name, layer.name)
            made.append(EngineLayer(name, last.kind, last.nodes + nodes, last.inputs, outputs))
        else:
            name = "PWN({})".format(layer.name) if layer._kind in ("ACTIVATION", "ELEMENTWISE") else layer.name
            made.append(EngineLayer(name, layer._kind.title().replace("_", ""), nodes, inputs, outputs))
    return _as_foreign(made) if FOREIGN in faults() else made


def _as_foreign(layers: List[EngineLayer]) -> List[EngineLayer]:
    name = "{{ForeignNode[{}...{}]}}".format(layers[0].name, layers[-1].name)
    return [EngineLayer(name, "Myelin", [], layers[0].inputs, layers[-1].outputs)]


def _header(version: Any, network: Network, config: Config, graph: Any, layers: List[EngineLayer]) -> Dict[str, Any]:
    narrow = version.number < (9,)
    io = []
    for mode, shapes in (("INPUT", graph.inputs), ("OUTPUT", graph.outputs)):
        for name, shape in shapes.items():
            dtype = "INT32" if narrow and graph.types[name] == "INT64" else graph.types[name]
            io.append({"name": name, "mode": mode, "dtype": dtype, "shape": list(shape)})
    full = "7.0.0" if CANNOT_LOAD in faults() else version.full
    return {
        "version": full,
        "strongly_typed": network._has("STRONGLY_TYPED"),
        "explicit_batch": network._has("EXPLICIT_BATCH"),
        "flags": sorted(config._flags),
        "verbosity": config.profiling_verbosity.name,
        "workspace": config._pools.get("WORKSPACE", getattr(config, "max_workspace_size", None)),
        "timing_cache": config._cache._content.decode("ascii") if config._cache else "",
        "version_compatible": "VERSION_COMPATIBLE" in config._flags,
        "hardware_compatible": getattr(getattr(config, "hardware_compatibility_level", None), "name", "NONE") != "NONE",
        "compute_capability": os.environ.get("STUB_CUDART_COMPUTE_CAPABILITY", ""),
        "precisions": {layer.name: layer._precision.name for layer in network._layers if layer._precision},
        "output_types": {layer.name: layer._output_types[0].name for layer in network._layers if layer._output_types},
        "profiles": [profile._shapes for profile in config._profiles],
        "io": io,
        "layers": [layer._asdict() for layer in layers],
    }


def _log(version: Any, layers: List[EngineLayer]) -> str:
    """The list of layers as the builder logs it."""
    if version.number < (10,):
        lines = [
            "Layer({}): {}, Tactic: 0x0000000000000000, {} -> {}".format(
                layer.kind,
                layer.name,
                ", ".join("{}[{}(1,-8,1)]".format(name, _LOG_TYPES[kind]) for name, kind in layer.inputs),
                ", ".join("{}[{}(1,-8,1)]".format(name, _LOG_TYPES[kind]) for name, kind in layer.outputs),
            )
            for layer in layers
        ]
        return "\n".join(["Engine Layer Information:"] + lines)
    tensor = "{{ Name: {}, Dimensions: [1,8], Format/Datatype: {} }}"
    if version.number >= (11,):
        tensor = (
            "{{ Name: {}, Dimensions: [1,8], Strides: [8,1], Datatype: {}, Format: (Linear) Row major linear format }}"
        )
    lines = [
        "Name: {}, LayerType: {}, Inputs: [ {}], Outputs: [ {}], TacticName: none, Metadata: {}".format(
            layer.name,
            layer.kind,
            ", ".join(tensor.format(name, _LOG_TYPES[kind]) for name, kind in layer.inputs),
            ", ".join(tensor.format(name, _LOG_TYPES[kind]) for name, kind in layer.outputs),
            "\x1f".join("[ONNX Layer: {}]".format(node) for node in layer.nodes),
        )
        for layer in layers
    ]
    return "\n".join(["Layers:"] + lines) + "\n\nBindings:\nx\ny"


class EngineInspector(Strict):
    execution_context: Any = None

    def __init__(self, header: Mapping[str, Any], released: List[str]) -> None:
        self._header, self._released = header, released

    def __del__(self) -> None:
        self._released.append("inspector")

    def get_engine_information(self, format: Any) -> str:  # noqa: A002 (TensorRT's name)
        if format.name != "JSON":
            raise ValueError("the fake inspector writes JSON only")
        number = tuple(int(part) for part in self._header["version"].split(".")[:2])
        layers = self._header["layers"]
        if NAMES_ONLY in faults() or self._header["verbosity"] != "DETAILED":
            return json.dumps({"Layers": [layer["name"] for layer in layers]})
        found = [self._layer(layer, number) for layer in layers]
        names = [io["name"] for io in self._header["io"]]
        if number >= (11,):
            tensors = [{"Name": io["name"], "DataType": io["dtype"].title()} for io in self._header["io"]]
            return json.dumps({"Layers": found, "I/O Tensors": tensors, "Engine Metadata": {}})
        # The separator of the metadata stands in the text as it is, which strict JSON does not allow.
        return json.dumps({"Layers": found, "Bindings": names}).replace("\\u001f", "\x1f")

    def _layer(self, layer: Mapping[str, Any], number: Tuple[int, ...]) -> Dict[str, Any]:
        told = {
            "Name": layer["name"],
            "LayerType": layer["kind"],
            "Inputs": [self._tensor(name, kind, number) for name, kind in layer["inputs"]],
            "Outputs": [self._tensor(name, kind, number) for name, kind in layer["outputs"]],
            "TacticName": "fake_tactic",
        }
        if number >= (8, 6):
            told["Metadata"] = "\x1f".join("[ONNX Layer: {}]".format(node) for node in layer["nodes"])
        return told

    def _tensor(self, name: str, kind: str, number: Tuple[int, ...]) -> Dict[str, Any]:
        hidden = NOT_SHOWN in faults() or (self._header["profiles"] and self.execution_context is None)
        unknown = UNKNOWN_TYPE in faults()
        if number >= (11,):
            kind = "Quaternion" if unknown else _LOG_TYPES[kind]
            return {"Name": name, "Dimensions": [1, 8], "Format": "(Linear) Row major linear format", "Datatype": kind}
        text = "Row major linear Quaternion" if unknown else _FORMATS[kind]
        return {"Name": name, "Dimensions": [1, 8], "Format/Datatype": "N/A due to dynamic shapes" if hidden else text}
