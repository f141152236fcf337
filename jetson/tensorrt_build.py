"""The process in which TensorRT builds: from a folder with a request to what came of it, in the same folder.

`tensorrt_child` starts it. One code path serves TensorRT 8.0 to 11 and
TensorRT-RTX; what differs is asked of the module.
"""

import io
import json
import os
import threading
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .engine_layers import (
    FLOAT,
    HALF,
    UNSHOWN,
    EngineLayer,
    LayersNotUnderstood,
    layers_from_inspector,
    layers_from_log,
    layers_from_network,
)
from .errors import BadRequest, DeployAttnError, first_line
from .layer_precision import Assignment, assign, precision_notes, precision_problems
from .tensorrt_config import (
    check_request,
    is_weak,
    load_timing_cache,
    make_config,
    report_progress,
    save_timing_cache,
)
from .tensorrt_module import (
    RTX,
    flags,
    has_weak_typing,
    init_plugins,
    load_or_reason,
    make_logger,
    title,
    version,
)

MODEL, REQUEST, OUTCOME, ENGINE = "model.onnx", "request.json", "outcome.json", "engine"
BUILD, PROBE = "build", "probe"

_STDIN = 0
_MOST_ERRORS = 5
_ADDED_BY_PARSER = ("ONNXTRT_", "(Unnamed Layer")
_KEPT_WHEN_VERBOSE = ("Engine Layer Information:", "Layers:\n", "Layer(", "Total ", "Max Scratch")


class _Draft(NamedTuple):
    """A finished build: the engine as TensorRT holds it, and what the network was."""

    engine: Any
    defined: List[EngineLayer]
    assignment: Optional[Assignment]


class _Seen(NamedTuple):
    """The engine's layers, where they were read, and what could not be read."""

    layers: List[EngineLayer]
    source: str
    problems: List[str]


def end_with_the_caller() -> None:
    """Has this process end when the one that started it is gone, also by SIGKILL: stdin is a pipe that it holds."""

    def wait() -> None:
        while os.read(_STDIN, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(verb: str, folder: str) -> None:
    """Does what REQUEST says and writes OUTCOME, and after a build ENGINE."""
    with io.open(os.path.join(folder, REQUEST), encoding="utf-8") as stream:
        request = json.load(stream)
    outcome = blank_outcome()
    try:
        if verb == PROBE:
            outcome = probe(request["module"])
        else:
            build(folder, request, outcome)
    except DeployAttnError as error:
        outcome["error"] = str(error)
        outcome["exit_code"] = error.exit_code
    with io.open(os.path.join(folder, OUTCOME), "w", encoding="utf-8") as stream:
        stream.write(json.dumps(outcome))


def blank_outcome() -> Dict[str, Any]:
    """What a build says of itself, before it began."""
    return {
        "absent": "",
        "version": "",
        "capabilities": [],
        "refusals": [],
        "built": False,
        "messages": [],
        "layers": [],
        "layers_from": "",
        "precision_problems": [],
        "precision_notes": [],
        "device": None,
        "error": "",
        "exit_code": 0,
    }


def probe(name: str) -> Dict[str, Any]:
    """What is here: the module's version, how it takes precision, and the GPU, or why there is none."""
    trt, reason = load_or_reason(name)
    if trt is None:
        return {"absent": reason}
    device, missing = find_device()
    return {
        "absent": "",
        "version": version(trt),
        "weak_typing": has_weak_typing(trt),
        "capabilities": _capabilities(trt),
        "device": device,
        "no_device": missing,
    }


def find_device() -> Tuple[Optional[Dict[str, str]], str]:
    """The first GPU's name and compute capability, or None and why there is none."""
    from .cudart import Cudart

    try:
        cudart = Cudart()
        return {"name": cudart.device_name(), "compute_capability": cudart.compute_capability()}, ""
    except DeployAttnError as error:
        return None, str(error)


def build(folder: str, request: Mapping[str, Any], outcome: Dict[str, Any]) -> None:
    """Builds MODEL as the request says; fills the outcome as it goes.

    Raises:
        DeployAttnError: the request is more than this version can do, or what
            was built cannot be loaded.
    """
    name = request["module"]
    trt, outcome["absent"] = load_or_reason(name)
    if trt is None:
        return
    outcome["version"] = version(trt)
    check_request(trt, request)
    outcome["capabilities"] = _capabilities(trt)
    if request.get("compute_capability") and request["compute_capability"] not in outcome["capabilities"]:
        return
    outcome["device"], _ = find_device()
    messages = outcome["messages"]
    logger = make_logger(trt, messages, None if name == RTX else _is_worth_keeping)
    init_plugins(trt, logger)
    draft = _built(trt, logger, request, folder, outcome)
    if draft is None:
        return
    with io.open(os.path.join(folder, ENGINE), "wb") as stream:
        stream.write(draft.engine)
    outcome["built"] = True
    # TensorRT-RTX builds for other GPUs than the one that is here, which cannot load what it built; its log tells all.
    inspected = None if name == RTX else _inspected(trt, logger, draft.engine, request, messages)
    _judge(trt, request, outcome, draft, _layers(inspected, messages, draft))


def _built(trt: Any, logger: Any, request: Mapping[str, Any], folder: str, outcome: Dict[str, Any]) -> Optional[_Draft]:
    """The engine; None where the parser or the builder refused, which the outcome then tells.

    Builder, network and parser end with this function: on a small board the
    engine could not be loaded beside them.
    """
    builder = _new_builder(trt, logger, request["module"], outcome["messages"])
    weak = is_weak(trt, request)
    network = builder.create_network(
        flags({"STRONGLY_TYPED": not weak, "EXPLICIT_BATCH": True}, trt.NetworkDefinitionCreationFlag)
    )
    parser = trt.OnnxParser(network, logger)
    with io.open(os.path.join(folder, MODEL), "rb") as stream:
        outcome["refusals"] = _refusals(parser, stream.read(), outcome["messages"])
    if outcome["refusals"]:
        return None
    half = request["precision"] == "fp16"
    assignment = assign(network, request.get("plan") or {}, trt) if half and weak else None
    config = make_config(trt, builder, request)
    cache = request.get("timing_cache")
    if cache:
        load_timing_cache(config, cache, outcome["messages"])
    monitor = report_progress(trt, config)
    engine = _serialized(builder, network, config)
    del monitor
    if engine is None:
        return None
    if cache:
        save_timing_cache(config, cache, outcome["messages"])
    return _Draft(engine, layers_from_network(network, trt), assignment)


def _new_builder(trt: Any, logger: Any, name: str, messages: Sequence[Sequence[str]]) -> Any:
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind11's words for a factory that gave nothing
        raise BadRequest(
            "{} {} cannot start its builder: {}. It needs an NVIDIA GPU with a driver that is new enough; "
            "`nvidia-smi`, or on a Jetson `cat /etc/nv_tegra_release`, shows what is there.".format(
                title(name), version(trt), "; ".join(_errors(messages)) or first_line(error)
            )
        ) from error


def _refusals(parser: Any, model: bytes, messages: Sequence[Sequence[str]]) -> List[Dict[str, str]]:
    """What the parser refuses of the model; nothing where it takes it."""
    try:
        if parser.parse(model):
            return []
    except (RuntimeError, IndexError, ValueError) as error:  # what C++ throws through the parser
        return [{"node": "", "operator": "", "code": type(error).__name__, "reason": first_line(error)}]
    found = [_refusal(parser.get_error(index)) for index in range(parser.num_errors)]
    reason = "; ".join(_errors(messages)) or "the parser gives no reason"
    return found or [{"node": "", "operator": "", "code": "UNKNOWN", "reason": reason}]


def _refusal(error: Any) -> Dict[str, str]:
    number = error.node()
    name = error.node_name() if hasattr(error, "node_name") else ""
    return {
        "node": name or ("number {}".format(number) if number >= 0 else ""),
        "operator": error.node_operator() if hasattr(error, "node_operator") else "",
        "code": error.code().name,
        "reason": error.desc(),
    }


def _serialized(builder: Any, network: Any, config: Any) -> Any:
    if hasattr(builder, "build_serialized_network"):
        return builder.build_serialized_network(network, config)
    engine = builder.build_engine(network, config)
    return None if engine is None else engine.serialize()


def _inspected(
    trt: Any, logger: Any, engine: Any, request: Mapping[str, Any], messages: Sequence[Sequence[str]]
) -> Optional[str]:
    """The inspector's JSON; None where this version has no inspector.

    Raises:
        DeployAttnError: what was just built cannot be loaded.
    """
    runtime = trt.Runtime(logger)
    if request.get("version_compatible") and hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise DeployAttnError(
            "TensorRT {} built an engine that it cannot load: {}.".format(
                version(trt), "; ".join(_errors(messages)) or "it gives no reason"
            )
        )
    return _information(trt, loaded, request) if hasattr(loaded, "create_engine_inspector") else None


def _information(trt: Any, engine: Any, request: Mapping[str, Any]) -> str:
    """What the inspector says; it ends here, before the engine, which up to 8.5 it does not keep alive."""
    inspector = engine.create_engine_inspector()
    context = _shaped_context(engine, request.get("profile") or {})
    if context is not None and hasattr(inspector, "execution_context"):
        inspector.execution_context = context  # without shapes, open sizes hide the types up to 10
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _shaped_context(engine: Any, profile: Mapping[str, Sequence[Sequence[int]]]) -> Any:
    """A context with the profile's optimum set, where there is a profile and memory for one."""
    context = engine.create_execution_context() if profile else None
    if context is None:
        return None
    for name, shapes in profile.items():
        if hasattr(context, "set_input_shape"):
            context.set_input_shape(name, tuple(shapes[1]))
        else:
            context.set_binding_shape(engine.get_binding_index(name), tuple(shapes[1]))
    return context


def _layers(inspected: Optional[str], messages: Sequence[Sequence[str]], draft: _Draft) -> _Seen:
    """The layers from the best list that there is: the inspector's, the log's, the network's."""
    problems = []
    partly: Optional[_Seen] = None
    for source in ("inspector", "log"):
        try:
            layers = layers_from_log(messages) if source == "log" else _from_inspector(inspected)
        except LayersNotUnderstood as error:
            problems.append(str(error))
            continue
        if layers and not any(UNSHOWN in layer.types() for layer in layers):
            return _Seen(layers, source, [])
        if layers and partly is None:
            partly = _Seen(layers, source, [])
    return partly or _Seen(draft.defined, "network", problems)


def _from_inspector(text: Optional[str]) -> Optional[List[EngineLayer]]:
    return None if text is None else layers_from_inspector(text)


def _judge(trt: Any, request: Mapping[str, Any], outcome: Dict[str, Any], draft: _Draft, seen: _Seen) -> None:
    """Compares what was built with what was asked for."""
    weak = is_weak(trt, request)
    outcome["layers"] = [layer.as_dict() for layer in seen.layers]
    outcome["layers_from"] = seen.source
    notes: List[str] = []
    if seen.source == "network":
        notes.append(
            "This version shows no layers of a built engine: the comparison is with the precisions that were set on "
            "the network."
        )
    if request["precision"] == "fp16":
        plan = request.get("plan") or _types_of(draft.defined)
        outcome["precision_problems"] = seen.problems + precision_problems(seen.layers, plan, weak)
        outcome["precision_notes"] = notes + precision_notes(seen.layers, plan, weak)
    elif weak:
        plan = dict.fromkeys(_types_of(draft.defined), "fp32")
        outcome["precision_problems"] = precision_problems(seen.layers, plan, weak)
    if draft.assignment is not None and draft.assignment.without_layer:
        outcome["precision_notes"].append(
            "The parser made no layer for these planned nodes: {}.".format(", ".join(draft.assignment.without_layer))
        )


def _types_of(layers: Sequence[EngineLayer]) -> Dict[str, str]:
    """As a plan, the types that the network's own layers have, by node; without what the parser added."""
    named = {HALF: "fp16", FLOAT: "fp32"}
    plan = {}
    for layer in layers:
        made = [named[kind] for kind in layer.outputs if kind in named]
        if made and layer.layer_type != "CONSTANT" and not layer.name.startswith(_ADDED_BY_PARSER):
            plan[layer.nodes[0] if layer.nodes else layer.name] = "fp16" if "fp16" in made else "fp32"
    return plan


def _capabilities(trt: Any) -> List[str]:
    if not hasattr(trt, "ComputeCapability"):
        return []
    return [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]


def _errors(messages: Sequence[Sequence[str]]) -> List[str]:
    found = [" ".join(text.split()).rstrip(".") for severity, text in messages if severity.endswith("ERROR")]
    return found[-_MOST_ERRORS:]


def _is_worth_keeping(severity: str, text: str) -> bool:
    """Verbose messages run to many megabytes; a few of them are read again."""
    return severity != "VERBOSE" or text.startswith(_KEPT_WHEN_VERBOSE)
