"""What a manifest says of the request, the tools and the tolerances."""

from __future__ import annotations

import contextlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from deploy_attn import __version__
from deploy_attn.engines.target import Target
from deploy_attn.engines.tolerance import TOLERANCES
from deploy_attn.jetson.artifact import file_sha256
from deploy_attn.request import ExportRequest
from deploy_attn.sources import Source

_TOOLS = ("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxsim", "numpy")


def manifest_of_request(request: ExportRequest, source: Source, target: Target) -> dict[str, Any]:
    """Everything in a manifest that does not depend on the graphs. JSON values only."""
    batch, channels, height, width = source.shape
    shape = ["batch" if request.dynamic_batch else batch, channels]
    shape += ["height", "width"] if request.dynamic_size else [height, width]
    return {
        "name": source.name,
        "source": {**source.description, "seed": request.seed, "checkpoint": _fingerprint(request.checkpoint)},
        "input": {"shape": shape, "file": _fingerprint(request.input_file)},
        "dynamic_batch": request.dynamic_batch,
        "dynamic_size": request.dynamic_size,
        "target": target.name,
        "opset": target.opset,
        "ir_version": target.ir_version,
        "precision": "fp16" if request.fp16 else "fp32",
        "tolerances": {name: tolerance._asdict() for name, tolerance in TOLERANCES.items()},
        "tools": _tools(),
    }


def _fingerprint(file: Path | None) -> dict[str, str] | None:
    return None if file is None else {"file": file.name, "sha256": file_sha256(str(file))}


def _tools() -> dict[str, str]:
    found = {"deploy-attn": __version__, "python": platform.python_version()}
    for name in _TOOLS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
