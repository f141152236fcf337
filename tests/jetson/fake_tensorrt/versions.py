"""The presence matrix: what the Python module of each TensorRT version has."""

import types
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from . import builder

_RELEASES = {
    "8.0": "8.0.1.6",
    "8.2": "8.2.1.8",
    "8.4": "8.4.1.5",
    "8.5": "8.5.2.2",
    "8.6": "8.6.2.3",
    "10": "10.3.0",
    "11": "11.1.0",
}
VERSIONS = tuple(_RELEASES)


class Version(NamedTuple):
    """A version, and the classes that its objects have."""

    number: Tuple[int, ...]
    full: str
    network_flags: Sequence[str]
    layer: Any
    config: Any


def module(version: str) -> Any:
    """The module `tensorrt` of a version of VERSIONS."""
    full = _RELEASES[version]
    number = tuple(int(part) for part in full.split(".")[:2])
    made: Any = types.ModuleType("tensorrt")
    made.__version__ = full
    for name, value in {**_enums(number), **_builders(number, full), **_runtime(version)}.items():
        setattr(made, name, value)
    return made


def _enums(number: Tuple[int, ...]) -> Dict[str, Any]:
    data_types = ["FLOAT", "HALF", "INT8", "INT32", "BOOL"] + _from(number, (8, 5), ["UINT8"])
    data_types += _from(number, (8, 6), ["FP8"]) + _from(number, (10,), ["BF16", "INT64"])
    verbosity = ["LAYER_NAMES_ONLY", "NONE", "DETAILED"] if number >= (8, 2) else ["DEFAULT", "NONE", "VERBOSE"]
    names = {
        "DataType": builder.enum("DataType", data_types),
        "BuilderFlag": builder.enum("BuilderFlag", _builder_flags(number)),
        "NetworkDefinitionCreationFlag": builder.enum("NetworkDefinitionCreationFlag", _network_flags(number)),
        "ProfilingVerbosity": builder.enum("ProfilingVerbosity", verbosity),
    }
    data_type = names["DataType"]
    names.update({"float32": data_type.FLOAT, "float16": data_type.HALF, "int32": data_type.INT32})
    if number >= (8, 2):
        names["LayerInformationFormat"] = builder.enum("LayerInformationFormat", ["ONELINE", "JSON"])
    if number >= (8, 4):
        names["MemoryPoolType"] = builder.enum("MemoryPoolType", ["WORKSPACE", "DLA_MANAGED_SRAM"])
    if number >= (8, 6):
        names["HardwareCompatibilityLevel"] = builder.enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"])
    return names


def _builder_flags(number: Tuple[int, ...]) -> List[str]:
    names = ["DEBUG", "GPU_FALLBACK", "REFIT", "DISABLE_TIMING_CACHE", "TF32"]
    names += ["FP16", "INT8"] if number < (11,) else []
    names += ["STRICT_TYPES"] if number < (9,) else []
    names += ["OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"] if (8, 2) <= number < (11,) else []
    return names + _from(number, (8, 6), ["VERSION_COMPATIBLE"])


def _network_flags(number: Tuple[int, ...]) -> List[str]:
    return (["EXPLICIT_BATCH"] if number < (11,) else []) + _from(number, (10,), ["STRONGLY_TYPED"])


def _builders(number: Tuple[int, ...], full: str) -> Dict[str, Any]:
    layer = _layer(number)
    config = _config(number)
    version = Version(number, full, _network_flags(number), layer, config)
    config._version = version
    made = type("Builder", (builder.BuilderOf8 if number < (9,) else builder.Builder,), {"_version": version})
    if number < (11,):
        made.platform_has_fast_fp16 = True  # type: ignore[attr-defined]
    names = {
        "ILogger": builder.ILogger,
        "ILayer": layer,
        "INetworkDefinition": builder.Network,
        "IBuilderConfig": config,
        "Builder": made,
        "OnnxParser": type("OnnxParser", (builder.OnnxParser,), {"_version": version}),
        "init_libnvinfer_plugins": lambda logger, namespace: True,
    }
    if number >= (8, 2):
        names["EngineInspector"] = builder.EngineInspector
    if number >= (10,):
        names["IProgressMonitor"] = builder.IProgressMonitor
    return names


def _layer(number: Tuple[int, ...]) -> Any:
    made = type("ILayer", (builder.LayerWithPrecision if number < (11,) else builder.Layer,), {})
    if number >= (8, 6):
        named = "[ONNX Layer: {}]"
        made.metadata = property(lambda layer: named.format(layer._node.name) if layer._node else "")  # type: ignore[attr-defined]
    return made


def _config(number: Tuple[int, ...]) -> Any:
    names: Dict[str, Any] = {}
    if number < (9,):
        names["max_workspace_size"] = None
    if number >= (8, 4):
        names["set_memory_pool_limit"] = lambda config, pool, size: config._pools.update({pool.name: size})
    if number >= (8, 6):
        names.update({"builder_optimization_level": 3, "hardware_compatibility_level": builder.Member("NONE", 0)})
    if number >= (10,):
        names["progress_monitor"] = None
    if number < (11,):
        names["int8_calibrator"] = None
    return type("IBuilderConfig", (builder.Config,), names)


def _from(number: Tuple[int, ...], first: Tuple[int, ...], names: List[str]) -> List[str]:
    return names if number >= first else []


def _runtime(version: str) -> Dict[str, Any]:
    from .runtime import runtime_names

    return dict(runtime_names(version))
