"""A trtexec for tests: it knows the flags of its version and no others, and writes that version's files.

`install` puts it into a folder. What it "builds" is JSON, {"input", "output",
"shape", "factor", "nodes": {name: type}}, which it computes itself, or an ONNX
file, which takes onnxruntime. `trtexec_flags.json` is from sampleOptions.cpp at
each release.
"""

import array
import json
import os
import signal
import stat
import sys
import time
from typing import Any, Dict, List, Mapping, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
FAULTS, CALLS = "FAKE_TRTEXEC", "FAKE_TRTEXEC_CALLS"
KILLED, CRASHED, OUT_OF_MEMORY, BAD_ALLOC, SLOW = "killed", "crashed", "out-of-memory", "bad-alloc", "slow"
UNPARSED, NOT_BUILT, STRIPPED, NO_GRAPH = "unparsed", "not-built", "stripped", "no-graph"
SILENTLY_FP32, IGNORES_PLAN, LATE_LAYERS, NO_LAYERS = "silently-fp32", "ignores-plan", "late-layers", "no-layers"
NOT_FINITE, GARBAGE, NO_FILES, TOO_SHORT, NO_ENGINE = "not-finite", "garbage", "no-files", "too-short", "no-engine"
FAILS_LATE = "fails-late"

RELEASES = ("8.0.1", "8.2.1", "8.4.3", "8.5.3", "8.6.1", "10.3.0", "11.1.0")

_MAGIC = b"FAKE-TRTEXEC\n"
_SCRIPT = """#!{python} -ES
import sys
sys.path[:] = {path!r}
from tests.jetson.fake_trtexec import main
sys.exit(main({release!r}, sys.argv[1:]))
"""


def install(folder: str, release: str) -> str:
    """Path of a trtexec of a release in a folder."""
    path = os.path.join(str(folder), "trtexec")
    with open(path, "w") as stream:
        root = os.path.dirname(os.path.dirname(HERE))
        stream.write(_SCRIPT.format(python=sys.executable, path=[root] + sys.path, release=release))
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    return path


def known_flags(release: str) -> List[str]:
    """The flags of a release, as `--fp16`."""
    with open(os.path.join(HERE, "trtexec_flags.json")) as stream:
        table = json.load(stream)
    found = [flags for tag, flags in table.items() if (tag.lstrip("v") + ".0").startswith(release)]
    return list(found[0])


def numbers(release: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def banner_number(release: str) -> int:
    major, minor, patch = numbers(release)
    return major * 1000 + minor * 100 + patch if major < 10 else major * 10000 + minor * 100 + patch


def faults() -> List[str]:
    return os.environ.get(FAULTS, "").split(",")


def say(severity: str, text: str) -> None:
    sys.stdout.write("[11/21/2026-10:00:00] [{}] {}\n".format(severity, text))


def put(text: str) -> None:
    sys.stdout.write(text + "\n")


def main(release: str, arguments: List[str]) -> int:
    if os.environ.get(CALLS):
        with open(os.environ[CALLS], "a") as stream:
            stream.write(json.dumps(arguments) + "\n")
    test = "TensorRT.trtexec [TensorRT v{}] # trtexec {}".format(banner_number(release), " ".join(arguments))
    put("&&&& RUNNING " + test)
    passed = _run(release, arguments)
    put("&&&& {} {}".format("PASSED" if passed else "FAILED", test))
    return 0 if passed else 1


def _run(release: str, arguments: List[str]) -> bool:
    known = known_flags(release)
    if STRIPPED in faults():
        known = [flag for flag in known if flag != "--noTF32"]
    given = dict(argument.partition("=")[::2] for argument in arguments)
    help_text = "=== Model Options ===\n" + "\n".join("  {}  ...".format(flag) for flag in known)
    if "--help" in given:
        put(help_text)
        return True
    unknown = [flag for flag in given if flag not in known]
    for flag in unknown:
        say("E", "Unknown option: {} {}".format(flag, given[flag]))
    if unknown:
        put(help_text)
        return False
    say("I", "TensorRT version: {}".format(release))
    _misbehave()
    say("W", "a warning that means nothing")
    header = _built(release, given) if "--onnx" in given else _loaded(release, given)
    if header is None:
        say("E", "Engine set up failed")
        return False
    if "--buildOnly" in given or "--skipInference" in given:
        return True
    return _inferred(release, given, header)


def _misbehave() -> None:
    asked = faults()
    sys.stdout.flush()
    if SLOW in asked:
        time.sleep(30)
    if KILLED in asked:
        os.kill(os.getpid(), signal.SIGKILL)
    if CRASHED in asked:
        os.kill(os.getpid(), signal.SIGSEGV)
    if BAD_ALLOC in asked:
        put("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGABRT)


def _built(release: str, given: Mapping[str, str]) -> Any:
    if UNPARSED in faults():
        say("E", '[TRT] ModelImporter.cpp:720: While parsing node number 3 [Det -> "y"]:')
        say("E", "[TRT] ModelImporter.cpp:721: --- Begin node ---")
        say("E", "[TRT] ModelImporter.cpp:726: ERROR: builtin_op_importers.cpp:4870 In function importFallbackPlugin")
        put('[8] Assertion failed: creator && "Plugin not found"')
        say("E", "Failed to parse onnx file")
        say("I", "Finish parsing network model")
        say("E", "Parsing model failed")
        say("E", "Failed to create engine from model or file.")
        return None
    if OUT_OF_MEMORY in faults():
        say("E", "[TRT] 2: [utils.cpp::checkMemLimit::380] Error Code 2: OutOfMemory (no further information)")
        return None
    if NOT_BUILT in faults():
        say("E", "[TRT] 10: Could not find any implementation for node conv.")
        say("E", "Engine could not be created from network")
        return None
    with open(given["--onnx"], "rb") as stream:
        model = stream.read()
    header = _header(release, given, model)
    if NO_ENGINE not in faults():
        with open(given["--saveEngine"], "wb") as stream:
            stream.write(_MAGIC + json.dumps(header).encode("ascii") + b"\n" + model)
    if FAILS_LATE in faults():
        say("E", "Saving engine to file failed.")
        return None
    if LATE_LAYERS not in faults():
        _show_layers(release, given, header)
    return dict(header, model=model)


def _header(release: str, given: Mapping[str, str], model: bytes) -> Dict[str, Any]:
    nodes = _graph(model)
    typed = "--stronglyTyped" in given or numbers(release) >= (11,)
    asked = dict(pair.rsplit(":", 1) for pair in given.get("--layerPrecisions", "").split(",") if pair)
    if given.get("--precisionConstraints") != "obey" or given.get("--layerOutputTypes") != given.get(
        "--layerPrecisions"
    ):
        asked = {}
    layers = {}
    for name, kind in nodes.items():
        if not typed:
            kind = "FLOAT" if "--fp16" not in given or SILENTLY_FP32 in faults() else "HALF"
            if asked.get(name) == "fp32" and IGNORES_PLAN not in faults():
                kind = "FLOAT"
        layers[name] = kind
    return {"version": release, "detailed": given.get("--profilingVerbosity") == "detailed", "layers": layers}


def _graph(model: bytes) -> Dict[str, str]:
    """The type of each node's output."""
    if model.startswith(b"{"):
        nodes: Dict[str, str] = json.loads(model.decode("ascii"))["nodes"]
        return nodes
    from tests.jetson.fake_tensorrt.onnx_reader import read_graph

    graph = read_graph(model)
    return {node.name: graph.types[node.outputs[0]] for node in graph.nodes if node.operator != "Constant"}


def _show_layers(release: str, given: Mapping[str, str], header: Mapping[str, Any]) -> None:
    layers = header["layers"]
    if NO_LAYERS in faults():
        return
    if "--verbose" in given:
        say("V", "[TRT] Engine Layer Information:")
        for name, kind in layers.items():
            put("Layer(Convolution): {0}, Tactic: 0, x[{1}(1,8)] -> y[{1}(1,8)]".format(name, kind.title()))
        say("V", "[TRT] something else")
    if "--exportLayerInfo" in given:
        listed = [_layer(release, name, kind) for name, kind in layers.items()] if header["detailed"] else list(layers)
        with open(given["--exportLayerInfo"], "w") as stream:
            stream.write(json.dumps({"Layers": listed}))


def _layer(release: str, name: str, kind: str) -> Dict[str, Any]:
    words = "Row major linear FP16 format" if kind == "HALF" else "Row major linear FP32"
    tensor = {"Name": "t", "Dimensions": [1, 8], "Format/Datatype": words}
    if numbers(release) >= (11,):
        tensor = {"Name": "t", "Dimensions": [1, 8], "Format": "Row major linear format", "Datatype": kind.title()}
    layer = {"Name": name, "LayerType": "Convolution", "Inputs": [tensor], "Outputs": [tensor]}
    return dict(layer, Metadata="[ONNX Layer: {}]".format(name)) if numbers(release) >= (8, 6) else layer


def _loaded(release: str, given: Mapping[str, str]) -> Any:
    with open(given["--loadEngine"], "rb") as stream:
        magic, line, model = stream.read().split(b"\n", 2)
    header = json.loads(line.decode("ascii"))
    if magic + b"\n" != _MAGIC:
        say("E", "[TRT] Serialization assertion failed.")
        return None
    if header["version"] != release:
        say("E", "[TRT] The engine plan file is not compatible with this version of TensorRT")
        return None
    _show_layers(release, given, header)
    return dict(header, model=model)


def _inferred(release: str, given: Mapping[str, str], header: Mapping[str, Any]) -> bool:
    if NO_GRAPH in faults() and ("--useCudaGraph" in given or numbers(release) >= (11,)):
        say("W", "The built TensorRT engine contains operations that are not permitted under CUDA graph capture mode.")
        say("W", "The specified --useCudaGraph flag has been ignored. The inference will be launched without it.")
    if NO_FILES in faults():
        return True
    if "--exportOutput" in given:
        _write_outputs(release, given, header)
    if "--exportTimes" in given:
        _write_times(release, given)
    return True


def _write_outputs(release: str, given: Mapping[str, str], header: Mapping[str, Any]) -> None:
    outputs = _computed(given, header)
    if numbers(release) >= (11,) and "--includeDataTransfers" not in given:
        outputs = [(name, shape, [0.0] * len(values)) for name, shape, values in outputs]
    with open(given["--exportOutput"], "w") as stream:
        if GARBAGE in faults():
            stream.write('[ { "name" : "y"\n')
            return
        stream.write("[\n")
        separator = "  "
        for name, extents, numbers_ in outputs:
            values = ["{:g}".format(value) for value in numbers_]
            if NOT_FINITE in faults():
                values[:3] = ["-nan", "inf", "-inf"]
            shape = "x".join(map(str, extents))
            stream.write('{}{{ "name" : "{}"\n'.format(separator, name))
            separator = ", "
            stream.write('  , "dimensions" : "{}"\n  , "values" : [ {} ]\n  }}\n'.format(shape, ", ".join(values)))
        stream.write("]\n")


def _computed(given: Mapping[str, str], header: Mapping[str, Any]) -> List[Tuple[str, List[int], List[float]]]:
    """(name, shape, values) of each output."""
    files = dict(pair.split(":") for pair in given["--loadInputs"].split(","))
    if header["model"].startswith(b"{"):
        said = json.loads(header["model"].decode("ascii"))
        values = array.array(said.get("type", "f"))
        with open(files[said["input"]], "rb") as stream:
            values.frombytes(stream.read())
        return [(said["output"], said["shape"], [value * said["factor"] for value in values])]
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(header["model"], providers=["CPUExecutionProvider"])
    feeds = {node.name: np.fromfile(files[node.name], "<f4").reshape(node.shape) for node in session.get_inputs()}
    names = [node.name for node in session.get_outputs()]
    outputs = zip(names, session.run(names, feeds))
    return [(name, list(found.shape), found.ravel().tolist()) for name, found in outputs]


def _write_times(release: str, given: Mapping[str, str]) -> None:
    """A row each 20 ms: 50 ms of computing during the warm-up, 2.5 to 2.59 ms later."""
    old = numbers(release) < (8, 6)
    warm_up, duration = float(given["--warmUp"]), 1000 * float(given["--duration"])
    rows = []
    for place in range(int((warm_up + (0 if TOO_SHORT in faults() else duration)) / 20)):
        start = 20.0 * place
        if start < warm_up and not old:
            continue
        compute = 50.0 if start < warm_up else 2.5 + place % 10 / 100
        row = {"startEnqMs": start, "endEnqMs": start + 0.1, "startH2dMs": start - 1, "endH2dMs": start}
        row.update(startComputeMs=start, endComputeMs=start + compute, startD2hMs=start + compute)
        row.update(endD2hMs=start + compute + 0.5, h2dMs=1.0, computeMs=compute, d2hMs=0.5, latencyMs=compute + 1.5)
        if old:
            row["endToEndMs"] = compute + 2
        rows.append(row)
    with open(given["--exportTimes"], "w") as stream:
        if GARBAGE in faults():
            rows = [{"startComputeMs": 900.0, "computeMs": 1.0} for _ in rows]
        stream.write("[\n")
        for place, row in enumerate(rows):
            text = ", ".join('"{}" : {:g}'.format(name, value) for name, value in row.items())
            stream.write("{}{{ {} }}\n".format(", " if place else "  ", text))
        stream.write("]\n")
