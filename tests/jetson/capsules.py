"""A capsule of a small gate, made by hand as `deploy-attn bundle` lays it out. Python 3.6, as the code it is for."""

import hashlib
import json
import os
import shutil
from typing import Any, Dict, List

import numpy as np

import deploy_attn.jetson
from deploy_attn.jetson.artifact import REFERENCE, SELF_HASH, Case, manifest_sha256
from deploy_attn.jetson.capsule import CAPSULE, OWN_HASH, own_sha256
from deploy_attn.jetson.reference import pack
from tests.jetson.builds import PLAN, gate

# What a test says to its launcher: the folder that stands for `/`, and the user that a run takes itself for.
ROOT, USER = "DEPLOY_ATTN_TEST_ROOT", "DEPLOY_ATTN_TEST_USER"
# As the launcher of a bundle, but that little time is spent on warming up and on power.
LAUNCHER = """\
import os, sys
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import jetson.measure, jetson.timing
from jetson.run import main
jetson.timing._QUICK_WARM_UP = 0.02
jetson.timing._DEFAULTS = jetson.timing._DEFAULTS._replace(longest_warm_up=0.02)
jetson.measure.POWER_HZ, jetson.measure._LEAST_SECONDS = 20.0, 3.0
if "{user}" in os.environ:
    os.geteuid = lambda: int(os.environ["{user}"])
sys.exit(main(sys.argv[1:], HERE, os.environ.get("{root}", "/")))
""".format(root=ROOT, user=USER)
TOLERANCES = {
    "fp32": {"rms_relative": 1e-5, "worst_relative": 5e-4, "reason": "another order"},
    "fp16": {"rms_relative": 2e-3, "worst_relative": 1e-1, "reason": "four roundings"},
    "fp16-rounded": {"rms_relative": 1e-2, "worst_relative": 5e-1, "reason": "pessimistic"},
}
FACTS = {
    "device.compute_capability": "5.3",
    "runtime.tensorrt": "8.0.1",
    "runtime.workspace_mib": 64,
    "onnx.opset": 13,
}


def expected(x: np.ndarray) -> np.ndarray:
    """What the gate computes, in float64: its weights are ones."""
    wide = x.astype(np.float64)
    mean = wide.mean(axis=(2, 3), keepdims=True)
    gated: np.ndarray = wide * 2 * np.maximum(mean.sum(axis=1, keepdims=True), 0)
    return gated.astype(np.float32)


def write(folder: str, **changed: Any) -> str:
    """A capsule in a folder of its own. `typed` puts the typed graph in; other names replace parts of capsule.json
    or, with `manifest`, `facts`, `engine`, of what is in it; `model` is the FP32 graph."""
    place = os.path.join(str(folder), "gate-board")
    os.makedirs(os.path.join(place, "artifact"))
    sources = os.path.join(place, "jetson")
    shutil.copytree(deploy_attn.jetson.__path__[0], sources, ignore=shutil.ignore_patterns("__pycache__"))
    _write_text(os.path.join(place, "run.py"), LAUNCHER)
    cases = _cases(changed)
    _write_artifact(os.path.join(place, "artifact"), changed)
    _write_manifest(os.path.join(place, "artifact"), [case.name for case in cases], changed)
    if changed.get("with_reference", True):
        _write_bytes(os.path.join(place, REFERENCE), pack(cases, None).content)
    seal(place, **changed)
    return place


def seal(place: str, **changed: Any) -> None:
    """Writes capsule.json for what is in a folder, as if it had been bundled so."""
    files = {}
    for parent, _, names in os.walk(place):
        for name in names:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, place).replace(os.sep, "/")
            if relative != CAPSULE and "__pycache__" not in relative:
                with open(path, "rb") as stream:
                    files[relative] = hashlib.sha256(stream.read()).hexdigest()
    listed: Dict[str, Any] = {
        "schema_version": changed.get("schema_version", 1),
        "name": "gate",
        "target": {
            "name": "board",
            "engine": changed.get("engine", "tensorrt"),
            "facts": dict(FACTS, **changed.get("facts", {})),
        },
        "deploy_attn": "0.1.0",
        "profile": {},
        "left_out": {} if changed.get("typed") else {"model.fp16.onnx": "not for this target"},
        "reference": pack(_cases(changed), None).description,
        "files": dict(files, **changed.get("files", {})),
    }
    listed[OWN_HASH] = own_sha256(listed)
    _write_text(os.path.join(place, CAPSULE), json.dumps(listed))


def edit(path: str, content: str) -> None:
    _write_text(path, content)


def _cases(changed: Dict[str, Any]) -> List[Case]:
    random = np.random.RandomState(0)
    inputs = [random.standard_normal((1, 4, 8, 8)).astype(np.float32) + 1 for _ in range(2)]
    outputs = [changed.get("reference", expected)(x) for x in inputs]
    return [Case(name, {"x": x}, {"y": y}) for name, x, y in zip(("normal", "other"), inputs, outputs)]


def _write_artifact(folder: str, changed: Dict[str, Any]) -> None:
    _write_bytes(os.path.join(folder, "model.onnx"), changed.get("model") or gate())
    if changed.get("typed"):
        _write_bytes(os.path.join(folder, "model.fp16.onnx"), gate(typed=True))
    nodes = [{"node": node, "precision": precision} for node, precision in PLAN.items()]
    _write_text(os.path.join(folder, "precision_plan.json"), json.dumps({"nodes": nodes}))


def _write_manifest(folder: str, cases: List[str], changed: Dict[str, Any]) -> None:
    files = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as stream:
            files[name] = hashlib.sha256(stream.read()).hexdigest()
    for name in ("model.fp16.onnx", REFERENCE):
        files.setdefault(name, "0" * 64)  # of the artifact, and not in the capsule
    manifest: Dict[str, Any] = {
        "schema_version": 1,
        "name": "gate",
        "tolerances": TOLERANCES,
        "graphs": [{"file": "model.onnx", "precision": "fp32"}, {"file": "model.fp16.onnx", "precision": "fp16"}],
        "cases": cases,
        "files": files,
    }
    manifest.update(changed.get("manifest", {}))
    manifest[SELF_HASH] = manifest_sha256(manifest)
    _write_text(os.path.join(folder, "manifest.json"), json.dumps(manifest))


def _write_text(path: str, text: str) -> None:
    _write_bytes(path, text.encode("utf-8"))


def _write_bytes(path: str, content: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(content)
