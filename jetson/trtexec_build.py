"""Building an engine through trtexec, and holding it against its plan."""

import os
import re
from types import MappingProxyType
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from .engine_layers import UNSHOWN, EngineLayer, LayersNotUnderstood, layers_from_inspector, layers_from_log
from .errors import BadRequest, DeployAttnError
from .layer_precision import precision_notes, precision_problems
from .tensorrt_build import ENGINE, MODEL, blank_outcome
from .trtexec import Tool, shape_flag, some, why_unspeakable
from .trtexec_files import whole_text
from .trtexec_process import Ended, OnLine, check_memory_and_flags, crashed, run

_LAYERS = "layers.json"
_MIB = 1 << 20
_MOST_ERRORS = 20

_NODE = re.compile(r"[Ww]hile parsing node number (\d+) \[(\w+)")
_OUTCOMES = (
    "Failed to parse onnx file",
    "Parsing model failed",
    "Failed to create engine from model",
    "Engine could not be created from network",
    "Building engine failed",
    "Engine set up failed",
)
_SEVERITIES: Mapping[str, str] = MappingProxyType(
    {"V": "VERBOSE", "I": "INFO", "W": "WARNING", "E": "ERROR", "F": "INTERNAL_ERROR"}
)


def cannot_build(tool: Tool, request: Mapping[str, Any]) -> str:
    """Why this version cannot build what a request asks (keys as in `tensorrt_child.build`); empty where it can."""
    for key in ("version_compatible", "hardware_compatible", "compute_capability"):
        if request.get(key):
            return "A request with {} is not built through trtexec. Use TensorRT's Python module.".format(key)
    unspeakable = why_unspeakable("shapes", list(request.get("profile") or {}))
    return unspeakable or (_cannot_build_half(tool, request) if request.get("precision") == "fp16" else "")


def build(tool: Tool, folder: str, request: Mapping[str, Any], on_line: Optional[OnLine] = None) -> Dict[str, Any]:
    """Builds `model.onnx` of a folder into `engine` beside it, and holds the engine against its plan.

    Args:
        tool: from `find`.
        folder: its log is written there too.
        request: as `tensorrt_child.build` takes it.
        on_line: gets each line of the log as it comes.

    Returns:
        What `tensorrt_child.build` returns.

    Raises:
        BadRequest: this version cannot do what the request asks.
        DeployAttnError: it ran out of memory, crashed, or refused a flag.
    """
    reason = cannot_build(tool, request)
    if reason:
        raise BadRequest(reason)
    outcome = blank_outcome()
    outcome["version"] = ".".join(map(str, tool.version))
    _remove(folder, ENGINE, _LAYERS)
    ended = run(tool, _build_flags(tool, request), folder, on_line)
    outcome["messages"] = [[_SEVERITIES[severity], text] for severity, text in ended.messages if severity in "WEF"]
    engine = os.path.join(folder, ENGINE)
    if ended.code != 0 or not os.path.isfile(engine) or not os.path.getsize(engine):
        _remove(folder, ENGINE)
        check_memory_and_flags(tool, ended)
        outcome["refusals"] = _refusals(ended)
        if ended.code < 0 or not ended.errors():
            raise crashed(tool, ended)
        return outcome
    outcome["built"] = True
    _judge(outcome, request, _layers(tool, folder, request, ended, on_line))
    return outcome


def _cannot_build_half(tool: Tool, request: Mapping[str, Any]) -> str:
    if request.get("typed"):
        if tool.version < (10,):
            return (
                "{} has no strongly typed networks, which come with 10.0. Build from model.onnx and its plan.".format(
                    tool.title()
                )
            )
        return ""
    if not tool.has("fp16"):
        return "{} takes precision only from the graph's own types. Build from model.fp16.onnx.".format(tool.title())
    plan = request.get("plan") or {}
    if not plan:
        return "FP16 takes a precision plan, and there is none. Export the model with --fp16."
    single = _single(plan)
    if single and not tool.has("layerPrecisions"):
        return (
            "{} cannot keep single layers in FP32: --layerPrecisions comes with 8.4, and the plan keeps {} nodes there "
            "({}). Use TensorRT's Python module (`sudo apt install python3-libnvinfer`), which can, or run this with "
            "--precision fp32.".format(tool.title(), len(single), some(single))
        )
    return why_unspeakable("precisions", single)


def _build_flags(tool: Tool, request: Mapping[str, Any]) -> List[str]:
    flags = ["--onnx=" + MODEL, "--saveEngine=" + ENGINE, "--noTF32"]  # TF32 has FP16's mantissa
    flags += ["--{}".format(flag) for flag in ("explicitBatch", "buildOnly", "skipInference") if tool.has(flag)]
    workspace = request.get("workspace_bytes")
    if workspace:
        form = "--memPoolSize=workspace:{}" if tool.has("memPoolSize") else "--workspace={}"
        flags.append(form.format(max(1, int(workspace) // _MIB)))
    if request.get("timing_cache"):
        flags.append("--timingCacheFile=" + os.path.abspath(request["timing_cache"]))
    flags += _shape_flags(request.get("profile") or {})
    if request.get("precision") == "fp16":
        flags += _half_flags(tool, request)
    if tool.has("exportLayerInfo"):
        return flags + ["--profilingVerbosity=detailed", "--exportLayerInfo=" + _LAYERS]
    return flags + ["--verbose"]  # only the log of the builder lists the layers


def _half_flags(tool: Tool, request: Mapping[str, Any]) -> List[str]:
    if request.get("typed"):
        return ["--stronglyTyped"] if tool.has("stronglyTyped") else []
    single = _single(request["plan"])
    if not single:
        return ["--fp16"]
    named = ",".join("{}:fp32".format(name) for name in single)
    return ["--fp16", "--precisionConstraints=obey", "--layerPrecisions=" + named, "--layerOutputTypes=" + named]


def _shape_flags(profile: Mapping[str, Sequence[Sequence[int]]]) -> List[str]:
    flags: List[str] = []
    for place, flag in enumerate(("minShapes", "optShapes", "maxShapes")):
        flags += shape_flag(flag, {name: profile[name][place] for name in profile})
    return flags


def _refusals(ended: Ended) -> List[Dict[str, str]]:
    """Every error of the parser, with the node where one is named; empty where it was not the parser that failed."""
    errors = ended.errors()
    if not any(text.startswith(_OUTCOMES[:2]) for text in errors):
        return []
    found: List[Dict[str, str]] = []
    node, operator = "", ""
    for text in errors:
        match = _NODE.search(text)
        if match:
            node, operator = "number {}".format(match.group(1)), match.group(2)
        elif not text.startswith(_OUTCOMES):
            found.append({"node": node, "operator": operator, "code": "trtexec", "reason": text})
    if not found:
        reason = "the parser gives no reason"
        found.append({"node": node, "operator": operator, "code": "trtexec", "reason": reason})
    return found[:_MOST_ERRORS]


class _Seen(NamedTuple):
    """The engine's layers, where they were read, and what could not be read."""

    layers: List[EngineLayer]
    source: str
    problems: List[str]


def _layers(tool: Tool, folder: str, request: Mapping[str, Any], ended: Ended, on_line: Optional[OnLine]) -> _Seen:
    if not tool.has("exportLayerInfo"):
        return _read_layers(lambda: layers_from_log([("VERBOSE", text) for _, text in ended.messages]), "log")
    path = os.path.join(folder, _LAYERS)
    seen = _read_layers(lambda: layers_from_inspector(whole_text(path)), "inspector")
    if not seen.problems and not any(UNSHOWN in layer.types() for layer in seen.layers):
        return seen
    # A build alone has no shapes, without which some versions hide types, and others write nothing.
    flags = ["--loadEngine=" + ENGINE, "--iterations=1", "--avgRuns=1", "--duration=0", "--warmUp=0"]
    profile = request.get("profile") or {}
    flags += shape_flag("shapes", {name: profile[name][1] for name in profile})
    loaded = run(tool, flags + ["--profilingVerbosity=detailed", "--exportLayerInfo=" + _LAYERS], folder, on_line)
    if loaded.code != 0:
        raise crashed(tool, loaded)
    return _read_layers(lambda: layers_from_inspector(whole_text(path)), "inspector")


def _read_layers(read: Callable[[], Optional[List[EngineLayer]]], source: str) -> _Seen:
    try:
        layers = read()
    except (LayersNotUnderstood, DeployAttnError) as error:
        return _Seen([], source, [str(error)])
    return _Seen(layers, source, []) if layers else _Seen([], source, ["trtexec shows no layers of the engine."])


def _judge(outcome: Dict[str, Any], request: Mapping[str, Any], seen: _Seen) -> None:
    """Compares what was built with what was asked for; an engine that shows nothing proves nothing."""
    outcome["layers"] = [layer.as_dict() for layer in seen.layers]
    outcome["layers_from"] = seen.source
    if request.get("precision") != "fp16":
        return  # nothing asked for half precision, and TF32 is off
    outcome["precision_problems"] = list(seen.problems)
    plan, weak = request.get("plan") or {}, not request.get("typed")
    if seen.layers and plan:
        outcome["precision_problems"] += precision_problems(seen.layers, plan, weak)
        outcome["precision_notes"] = precision_notes(seen.layers, plan, weak)


def _remove(folder: str, *names: str) -> None:
    for name in names:
        if os.path.exists(os.path.join(folder, name)):
            os.unlink(os.path.join(folder, name))


def _single(plan: Mapping[str, str]) -> List[str]:
    return sorted(name for name in plan if plan[name] == "fp32")
