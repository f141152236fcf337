"""Capsules for the tests: a real one, and one whose run.py does what a test needs, whole and vouched for."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from deploy_attn.jetson.artifact import file_sha256
from deploy_attn.jetson.capsule import CAPSULE, LAUNCHER, OWN_HASH, own_sha256, unpack

# What every stand-in has at hand: where it is, and a verdict that passes.
_PRELUDE = """
import json, os, signal, sys, time
HERE = os.path.dirname(os.path.abspath(__file__))
CHECK = {check}
VERDICT = {{"engine": "onnxruntime", "passed": True, "checks": [CHECK], "conditions": {{"version": "1.10.0"}}}}

def put(name, text):
    with open(os.path.join(HERE, name), "w") as stream:
        stream.write(text)

def judge(**changes):
    put("verdict.json", json.dumps(dict(VERDICT, **changes)))

def tell_pid():
    draft = os.path.join(os.environ["HOME"], "draft")
    with open(draft, "w") as stream:
        stream.write(str(os.getpid()))
    os.rename(draft, os.path.join(os.environ["HOME"], "pid"))

"""
CHECK: dict[str, Any] = {
    "graph": "model.onnx",
    "precision": "fp32",
    "bracket": "exact",
    "case": "normal",
    "output": "output",
    "passed": True,
    "error": None,
    "measured": {
        "max_abs": 1e-7,
        "rms_relative": 1e-7,
        "cosine": 1.0,
        "worst_relative": 1e-7,
        "worst_index": [0],
        "worst_expected": 1.0,
        "worst_actual": 1.0,
        "non_finite": 0,
    },
    "tolerance": {"rms_relative": 1e-5, "worst_relative": 5e-4, "reason": "FP32"},
}


def stand_in(real: Path, folder: Path, run: str, name: str = "capsule.tar.gz") -> Path:
    """A capsule like a real one, but for its run.py."""
    place = Path(unpack(str(real), str(folder / "unpacked")))
    text = run if run.startswith("#raw") else _PRELUDE.format(check=CHECK) + run
    (place / LAUNCHER).write_text(text, encoding="utf-8")
    listed = json.loads((place / CAPSULE).read_text(encoding="utf-8"))
    listed["files"][LAUNCHER] = file_sha256(str(place / LAUNCHER))
    listed[OWN_HASH] = own_sha256(listed)
    (place / CAPSULE).write_text(json.dumps(listed), encoding="utf-8")
    archive = folder / name
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(place, place.name)
    return archive


def padded(archive: Path, folder: Path, size: int, name: str = "padding.bin") -> Path:
    """The same capsule with one file more, which does not compress."""
    place = Path(unpack(str(archive), str(folder / "padded")))
    (place / name).write_bytes(os.urandom(size))
    larger = folder / archive.name
    with tarfile.open(larger, "w:gz") as tar:
        tar.add(place, place.name)
    return larger


def archive_of(members: dict[str, bytes]) -> bytes:
    """A .tar.gz with these members as they are named."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()
