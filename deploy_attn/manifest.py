"""What a manifest says of the request, the tools and the tolerances."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from deploy_attn import __version__
from deploy_attn.engines.target import Target
from deploy_attn.engines.tolerance import NETWORK_TOLERANCES, TOLERANCES, Tolerance
from deploy_attn.export.arguments import INPUT
from deploy_attn.export.input_spec import InputSpec
from deploy_attn.export.onnx_from_module import GraphRequest
from deploy_attn.jetson.artifact import file_sha256
from deploy_attn.request import ExportRequest
from deploy_attn.sources import Source

_TOOLS = ("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxsim", "numpy")


def manifest_of_request(
    request: ExportRequest, source: Source, target: Target, inputs: Mapping[str, InputSpec]
) -> dict[str, Any]:
    """Everything in a manifest that does not depend on the graphs; `inputs` by the graph's names. JSON values only."""
    return {
        "name": source.name,
        "source": {**source.description, "seed": request.seed, "checkpoint": _fingerprint(request.checkpoint)},
        **_described(request, inputs),
        **({} if request.semantics is None else {"semantics": request.semantics}),
        "dynamic_batch": request.dynamic_batch,
        "dynamic_size": request.dynamic_size,
        "target": target.name,
        "opset": target.opset,
        "ir_version": target.ir_version,
        "precision": "fp16" if request.fp16 else "fp32",
        "tolerances": {name: tolerance._asdict() for name, tolerance in tolerances_of(source).items()},
        "tools": tools(),
    }


def tolerances_of(source: Source) -> Mapping[str, Tolerance]:
    """A network may round more than a module does."""
    return TOLERANCES if source.file is None else NETWORK_TOLERANCES


def _described(request: ExportRequest, inputs: Mapping[str, InputSpec]) -> dict[str, Any]:
    """`input` where there is one, `inputs` and `input_file` where there are several."""
    wanted = GraphRequest(0, 0, request.dynamic_batch, request.dynamic_size)
    file = _fingerprint(request.input_file)
    shapes = {
        name: [wanted.open_axes(len(spec.shape)).get(axis, extent) for axis, extent in enumerate(spec.shape)]
        for name, spec in inputs.items()
    }
    if list(inputs) == [INPUT]:
        return {"input": {"shape": shapes[INPUT], "file": file}}
    described = {name: {"shape": shapes[name], "dtype": spec.dtype} for name, spec in inputs.items()}
    return {"inputs": described, "input_file": file}


def _fingerprint(file: Path | None) -> dict[str, str] | None:
    return None if file is None else {"file": file.name, "sha256": file_sha256(str(file))}


def tools() -> dict[str, str]:
    found = {"deploy-attn": __version__, "python": platform.python_version()}
    for name in _TOOLS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
