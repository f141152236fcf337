"""trtexec: TensorRT's own program, for boards without its Python module. It builds, times and runs engines.

Its flags come and go with its version, which it says itself. Outputs come back
as text of six digits, and what it measures is what its log and files tell.
"""

import io
import math
import os
import re
import shutil
import subprocess
import tempfile
from types import MappingProxyType
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .engine_layers import UNSHOWN, EngineLayer, LayersNotUnderstood, layers_from_inspector, layers_from_log
from .errors import BadRequest, DeployAttnError
from .layer_precision import precision_notes, precision_problems
from .tensorrt_build import ENGINE, MODEL, blank_outcome
from .tensorrt_child import OUT_OF_MEMORY, available_memory, out_of_memory, signal_name, told_memory
from .tensorrt_module import TENSORRT
from .timing import Options, Timing
from .trtexec_files import ROUNDING, read_outputs, read_times, whole_text

__all__ = ["LOG", "ROUNDING", "Tool", "TrtexecEngine", "build", "cannot_build", "find", "open_tool"]

LOG = "trtexec.log"

_PLACE = os.path.join("usr", "src", "tensorrt", "bin", "trtexec")
_OLDEST = (8, 0)
_SECONDS_FOR_HELP = 60
_WARM_UP_MS = 200
_MOST_ERRORS = 20
_MIB = 1 << 20

_LAYERS, _TIMES, _OUTPUTS = "layers.json", "times.json", "outputs.json"

# Flag -> (the first version that has it, the first that has it no more); from sampleOptions.cpp at each release.
_FLAGS: Mapping[str, Tuple[Tuple[int, int], Tuple[int, int]]] = MappingProxyType(
    {
        "explicitBatch": ((8, 0), (8, 4)),  # accepted up to 8.6, needed by none of those
        "workspace": ((8, 0), (8, 4)),  # accepted up to 8.6
        "memPoolSize": ((8, 4), (99, 0)),
        "buildOnly": ((8, 0), (8, 6)),
        "skipInference": ((8, 6), (99, 0)),
        "fp16": ((8, 0), (11, 0)),
        "precisionConstraints": ((8, 2), (11, 0)),
        "layerPrecisions": ((8, 4), (11, 0)),
        "layerOutputTypes": ((8, 4), (11, 0)),
        "stronglyTyped": ((10, 0), (11, 0)),  # from 11 on there is nothing else
        "profilingVerbosity": ((8, 2), (99, 0)),
        "exportLayerInfo": ((8, 2), (99, 0)),
        "useCudaGraph": ((8, 0), (11, 0)),  # the default from 11 on
        "useSpinWait": ((8, 0), (11, 0)),  # likewise
        "includeDataTransfers": ((11, 0), (99, 0)),  # the default before 11
    }
)

_BANNER = re.compile(r"TensorRT\.trtexec \[TensorRT v(\d{4,6})\]")
_LINE = re.compile(r"\[[^\]]*\] \[(?P<severity>[VIWEF])\] (?:\[TRT\] )?(?P<text>.*)")
_UNKNOWN = re.compile(r"Unknown option: (\S+)")
_NODE = re.compile(r"[Ww]hile parsing node number (\d+) \[(\w+)")
_OUTCOMES = (
    "Failed to parse onnx file",
    "Parsing model failed",
    "Failed to create engine from model",
    "Engine could not be created from network",
    "Building engine failed",
    "Engine set up failed",
)
_NO_GRAPH = re.compile(
    r"not permitted under CUDA graph capture|useCudaGraph flag has been ignored|graph capture failed"
)
_UNSPEAKABLE = re.compile("[,:'*]")  # what separates names in trtexec's flags
_UNWRITABLE = "trtexec's flags for {} have no way to write these names: {}."

OnLine = Callable[[str], None]


class Tool(NamedTuple):
    """A trtexec: where it is, and its version as (8, 2, 1)."""

    path: str
    version: Tuple[int, int, int]

    def has(self, flag: str) -> bool:
        """Whether this version has a flag of the table above."""
        first, gone = _FLAGS[flag]
        return first <= self.version[:2] < gone

    def title(self) -> str:
        return "trtexec {}".format(".".join(map(str, self.version)))


class _Ended(NamedTuple):
    """A trtexec that ended: its exit code, and what it said as (severity, text)."""

    code: int
    messages: List[Tuple[str, str]]

    def errors(self) -> List[str]:
        return [" ".join(text.split()) for severity, text in self.messages if severity in ("E", "F")]


def find(root: str = "/") -> Tool:
    """The trtexec of this machine: where JetPack has it, else the one on PATH.

    Raises:
        BadRequest: there is none, it does not start, or it is older than 8.0.
    """
    place = os.path.join(root, _PLACE)
    path = place if os.access(place, os.X_OK) else shutil.which("trtexec")
    if path is None:
        raise BadRequest(
            "trtexec is neither at {} nor on PATH. On a Jetson it comes with JetPack as `sudo apt install "
            "libnvinfer-bin`.".format(place)
        )
    return open_tool(path)


def open_tool(path: str) -> Tool:
    """Asks a trtexec for its version; raises as `find`."""
    try:
        done = subprocess.run(
            [path, "--help"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS_FOR_HELP,
            check=False,
        )
        code, said = done.returncode, done.stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadRequest("{} does not start: {}. Install TensorRT again.".format(path, error)) from error
    match = _BANNER.search(said)
    if match is None:
        last = (said.strip().splitlines() or ["nothing"])[-1]
        raise BadRequest(
            "{} does not say which TensorRT it is of (exit code {}; it said: {}). TensorRT 8.0 or newer is needed, all "
            "parts of one version.".format(path, code, last.strip().rstrip("."))
        )
    version = _version(int(match.group(1)))
    if version < _OLDEST:
        raise BadRequest("{} is of TensorRT {}.{}.{}; 8.0 or newer is needed.".format(path, *version))
    return Tool(path, version)


def cannot_build(tool: Tool, request: Mapping[str, Any]) -> str:
    """Why this version cannot build what a request asks (keys as in `tensorrt_child.build`); empty where it can."""
    for key in ("version_compatible", "hardware_compatible", "compute_capability"):
        if request.get(key):
            return "A request with {} is not built through trtexec. Use TensorRT's Python module.".format(key)
    names = [name for name in request.get("profile") or {} if _UNSPEAKABLE.search(name)]
    if names:
        return "{} Use TensorRT's Python module.".format(_UNWRITABLE.format("shapes", _some(names)))
    return _cannot_build_half(tool, request) if request.get("precision") == "fp16" else ""


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
            "--precision fp32.".format(tool.title(), len(single), _some(single))
        )
    unspeakable = [name for name in single if _UNSPEAKABLE.search(name)]
    if unspeakable:
        return "{} Use TensorRT's Python module.".format(_UNWRITABLE.format("precisions", _some(unspeakable)))
    return ""


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
    before = available_memory()
    ended = _run(tool, _build_flags(tool, request), folder, on_line)
    outcome["messages"] = [[_SEVERITIES[severity], text] for severity, text in ended.messages if severity in "WEF"]
    engine = os.path.join(folder, ENGINE)
    if ended.code != 0 or not os.path.isfile(engine) or not os.path.getsize(engine):
        _remove(folder, ENGINE)
        _check_memory_and_flags(tool, ended, before)
        outcome["refusals"] = _refusals(ended)
        if ended.code < 0 or not ended.errors():
            raise _crashed(tool, ended)
        return outcome
    outcome["built"] = True
    _judge(outcome, request, _layers(tool, folder, request, ended, on_line))
    return outcome


class TrtexecEngine:
    """An engine file, run and timed by trtexec: each call is a process of its own.

    Args:
        tool: the trtexec that built it.
        engine: its file.
        profile: as it was built with, by input; inputs that are not in it have fixed shapes.
        on_line: gets each line of each log as it comes.
    """

    def __init__(
        self,
        tool: Tool,
        engine: str,
        profile: Optional[Mapping[str, Any]] = None,
        on_line: Optional[OnLine] = None,
    ) -> None:
        self._tool = tool
        self._engine = os.path.abspath(engine)
        self._profile = dict(profile or {})
        self._on_line = on_line

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """The outputs by name, in float32, each value off by up to ROUNDING of itself.

        Raises:
            BadRequest: an input cannot be given to trtexec.
            DeployAttnError: trtexec failed, or wrote no outputs that can be read.
        """
        with tempfile.TemporaryDirectory(prefix="deploy-attn-trtexec-") as folder:
            flags = self._input_flags(feeds, folder)
            flags += ["--iterations=1", "--avgRuns=1", "--duration=0", "--warmUp=0", "--exportOutput=" + _OUTPUTS]
            self._finished(flags, folder)
            return read_outputs(os.path.join(folder, _OUTPUTS))

    def time(self, feeds: Mapping[str, np.ndarray], options: Options) -> Timing:
        """Times it, with a CUDA graph where trtexec can capture one and no copy beside computing; raises as `infer`."""
        with tempfile.TemporaryDirectory(prefix="deploy-attn-trtexec-") as folder:
            flags = self._input_flags(feeds, folder) + ["--exposeDMA", "--avgRuns=1000", "--iterations=10"]
            flags += ["--{}".format(flag) for flag in ("useCudaGraph", "useSpinWait") if self._tool.has(flag)]
            flags += ["--warmUp={}".format(_WARM_UP_MS), "--duration={}".format(max(1, math.ceil(options.duration)))]
            ended = self._finished(flags + ["--exportTimes=" + _TIMES], folder)
            compute, end_to_end = read_times(os.path.join(folder, _TIMES), _WARM_UP_MS)
        said = [text for severity, text in ended.messages if _NO_GRAPH.search(text)]
        how = "by {}, events on its stream; end to end with copies that nothing overlaps".format(self._tool.title())
        return Timing(compute, end_to_end, not said, said[0] if said else "", how)

    def _input_flags(self, feeds: Mapping[str, np.ndarray], folder: str) -> List[str]:
        files, shapes = [], []
        for place, name in enumerate(sorted(feeds)):
            if _UNSPEAKABLE.search(name):
                raise BadRequest("{} Use TensorRT's Python module.".format(_UNWRITABLE.format("inputs", name)))
            array, file = self._narrowed(name, feeds[name]), "input-{}.bin".format(place)
            with io.open(os.path.join(folder, file), "wb") as stream:
                stream.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
            files.append("{}:{}".format(name, file))
            if name in self._profile:
                shapes.append("{}:{}".format(name, _text(array.shape)))
        flags = ["--loadEngine=" + self._engine, "--loadInputs=" + ",".join(files)]
        flags += ["--shapes=" + ",".join(shapes)] if shapes else []
        # Without it, from 11 on, the inputs would stay where they are and the outputs would not come.
        return flags + (["--includeDataTransfers"] if self._tool.has("includeDataTransfers") else [])

    def _narrowed(self, name: str, array: np.ndarray) -> np.ndarray:
        """int64 as int32 where TensorRT has no int64."""
        if array.dtype != np.int64 or self._tool.version >= (9,):
            return array
        narrow = array.astype(np.int32)
        if not np.array_equal(narrow, array):
            raise BadRequest(
                "Input {!r} has values beyond int32, which is what {} takes.".format(name, self._tool.title())
            )
        return narrow

    def _finished(self, flags: Sequence[str], folder: str) -> _Ended:
        before = available_memory()
        ended = _run(self._tool, flags, folder, self._on_line)
        if ended.code != 0:
            _check_memory_and_flags(self._tool, ended, before)
            raise _crashed(self._tool, ended)
        return ended


_SEVERITIES: Mapping[str, str] = MappingProxyType(
    {"V": "VERBOSE", "I": "INFO", "W": "WARNING", "E": "ERROR", "F": "INTERNAL_ERROR"}
)


def _version(number: int) -> Tuple[int, int, int]:
    """8502 is 8.5.2, and 100300 is 10.3.0."""
    if number < 10000:
        return number // 1000, number // 100 % 10, number % 100
    return number // 10000, number // 100 % 100, number % 100


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
    flags = []
    for place, flag in enumerate(("minShapes", "optShapes", "maxShapes")):
        shapes = ["{}:{}".format(name, _text(profile[name][place])) for name in sorted(profile)]
        flags += ["--{}={}".format(flag, ",".join(shapes))] if shapes else []
    return flags


def _run(tool: Tool, flags: Sequence[str], folder: str, on_line: Optional[OnLine]) -> _Ended:
    """Runs it to its end in a folder, where its log stays; ends it if that fails."""
    process = subprocess.Popen(
        [tool.path] + list(flags),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a Ctrl-C ends it once, from here
    )
    messages: List[Tuple[str, str]] = []
    try:
        with io.open(os.path.join(folder, LOG), "wb") as log:
            for raw in process.stdout or ():
                log.write(raw)
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                _take(line, messages)
                if on_line is not None:
                    on_line(line)
        return _Ended(process.wait(), messages)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _take(line: str, messages: List[Tuple[str, str]]) -> None:
    """Adds a line to what was said: a message of its own, or more of the last one. Most of a log is not kept."""
    if line.startswith("&&&&"):
        return
    match = _LINE.match(line)
    if match is None:
        if messages:
            severity, text = messages[-1]
            messages[-1] = (severity, "{}\n{}".format(text, line))
        elif line.strip():
            messages.append(("I", line))  # the dynamic loader's words have no severity
        return
    if messages and not _is_worth_keeping(*messages[-1]):
        messages.pop()
    messages.append((match.group("severity"), match.group("text")))


def _is_worth_keeping(severity: str, text: str) -> bool:
    return (
        severity in "WEF"
        or text.startswith(("Engine Layer Information:", "Layers:", "Layer("))
        or bool(_NO_GRAPH.search(text))
    )


def _check_memory_and_flags(tool: Tool, ended: _Ended, before: Optional[int]) -> None:
    """Raises DeployAttnError where memory ran out, or where this version refused a flag."""
    if ended.code == -9:
        said = "in trtexec was killed (SIGKILL), as the system does when memory runs out"
        raise out_of_memory(TENSORRT, said, told_memory(before))
    said_so = [text for text in ended.errors() if OUT_OF_MEMORY.search(text)]
    said_so += [text for _, text in ended.messages[-1:] if OUT_OF_MEMORY.search(text)]
    if said_so:
        raise out_of_memory(
            TENSORRT, "in trtexec ran out of memory ({})".format(said_so[-1].rstrip(".")), told_memory(before)
        )
    unknown = [match.group(1) for match in map(_UNKNOWN.search, ended.errors()) if match]
    if unknown:
        raise DeployAttnError(
            "{} at {} refuses the flags {}, which its version has as NVIDIA released it. Use TensorRT's Python "
            "module.".format(tool.title(), tool.path, ", ".join(unknown))
        )


def _crashed(tool: Tool, ended: _Ended) -> DeployAttnError:
    how = signal_name(-ended.code) if ended.code < 0 else "exit code {}".format(ended.code)
    last = ended.errors() or [text for _, text in ended.messages]
    said = "; ".join(text.strip().rstrip(".") for text in last[-4:])
    return DeployAttnError("{} failed ({}){}.".format(tool.title(), how, ": " + said if said else " without a message"))


def _refusals(ended: _Ended) -> List[Dict[str, str]]:
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


def _layers(tool: Tool, folder: str, request: Mapping[str, Any], ended: _Ended, on_line: Optional[OnLine]) -> _Seen:
    if not tool.has("exportLayerInfo"):
        return _read_layers(lambda: layers_from_log([("VERBOSE", text) for _, text in ended.messages]), "log")
    path = os.path.join(folder, _LAYERS)
    seen = _read_layers(lambda: layers_from_inspector(whole_text(path)), "inspector")
    if not seen.problems and not any(UNSHOWN in layer.types() for layer in seen.layers):
        return seen
    # A build alone has no shapes, without which some versions hide types, and others write nothing.
    flags = ["--loadEngine=" + ENGINE, "--iterations=1", "--avgRuns=1", "--duration=0", "--warmUp=0"]
    profile = request.get("profile") or {}
    shapes = ["{}:{}".format(name, _text(profile[name][1])) for name in sorted(profile)]
    flags += ["--shapes=" + ",".join(shapes)] if shapes else []
    loaded = _run(tool, flags + ["--profilingVerbosity=detailed", "--exportLayerInfo=" + _LAYERS], folder, on_line)
    if loaded.code != 0:
        raise _crashed(tool, loaded)
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


def _some(names: Sequence[str]) -> str:
    more = len(names) - 5
    return ", ".join(names[:5]) + (" and {} more".format(more) if more > 0 else "")


def _text(shape: Sequence[int]) -> str:
    return "x".join(str(extent) for extent in shape)
