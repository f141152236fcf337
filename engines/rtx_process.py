"""The process in which TensorRT-RTX builds: from a folder of requests to what came of it, in the same folder.

Run by `tensorrt_rtx`, by path and with nothing of this project imported, since
that would take longer than most builds.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

MODEL, REQUEST, OUTCOME, ENGINE = "model.onnx", "request.json", "outcome.json", "engine"


def build(folder: Path) -> None:
    """Builds MODEL as REQUEST says, and writes OUTCOME and, if there is one, ENGINE."""
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    try:
        trt: Any = importlib.import_module("tensorrt_rtx")
    except ImportError as error:
        outcome: dict[str, Any] = {"absent": str(error)}
    else:
        outcome = _outcome(trt, folder, request)
    (folder / OUTCOME).write_text(json.dumps(outcome), encoding="utf-8")


def _outcome(trt: Any, folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    capabilities = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    messages: list[tuple[str, str]] = []
    outcome = {"version": trt.__version__, "capabilities": capabilities, "messages": messages}
    if request["compute_capability"] not in capabilities:
        return outcome
    logger = _collector(trt, messages)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse((folder / MODEL).read_bytes()):
        return {**outcome, "refusals": [_refusal(parser.get_error(index)) for index in range(parser.num_errors)]}
    engine = builder.build_serialized_network(network, _config(trt, builder, request))
    if engine is None:
        return outcome
    (folder / ENGINE).write_bytes(engine)
    return {**outcome, "built": True}


def _collector(trt: Any, messages: list[tuple[str, str]]) -> Any:
    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 wants it called by name

        def log(self, severity: Any, text: str) -> None:
            messages.append((severity.name, text))

    return Collector()


def _refusal(error: Any) -> dict[str, str]:
    return {
        "node": error.node_name(),
        "operator": error.node_operator(),
        "code": error.code().name,
        "reason": error.desc(),
    }


def _config(trt: Any, builder: Any, request: dict[str, Any]) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the log then lists the kernels
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.__members__[request["compute_capability"]], 0)
    if request["profile"]:
        profile = builder.create_optimization_profile()
        for name, shapes in request["profile"].items():
            profile.set_shape(name, *shapes)
        config.add_optimization_profile(profile)
    return config


if __name__ == "__main__":
    build(Path(sys.argv[2]))
