"""Kernels and memory traffic of the forms in TensorRT-RTX: `python benchmarks/kernels.py`, deterministic, no GPU.

The source's code and the export form of each family are built for one GPU, and
the kernels of the finished engines counted. The traffic is what all kernels
read and write, without weights, in units of one read and one write of the map:
1.0 is one pass, and 1.5 is what a gate over the whole map costs, which reads it
twice. These are static figures; the times behind them need a GPU.

Exit code 1 if a gpu form is refused or moves more than the source's code.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from cases import MEASURED, Case, Result, Results, cases, name_argument, shape_text, versions
from naive import naive
from torch import nn

from deploy_attn.engines.tensorrt_rtx import engine_from_onnx
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.jetson.errors import DeployAttnError
from deploy_attn.modules.catalogue import Shape

SHAPE: Shape = (1, 256, 28, 28)
REQUEST = GraphRequest(17, 8)
COMPUTE_CAPABILITY = "SM86"
ROUNDING = 0.02  # a few vectors of one value a channel
PASS_BYTES = 2 * 4 * math.prod(SHAPE)


def main() -> int:
    """Builds every case, prints a line a graph, and says whether every gpu form holds."""
    parser = argparse.ArgumentParser(description="Kernels and memory traffic of the forms in TensorRT-RTX.")
    parser.add_argument("--names", nargs="+", type=name_argument, default=(), help="only these modules")
    parser.add_argument("--output", type=Path, default=MEASURED / "kernels.json")
    wanted = parser.parse_args()
    todo = cases(wanted.names)
    results = Results(wanted.output, _head(), ("case",), [(case.label,) for case in todo])
    print(f"{'case':<18} {'graph':<6} {'kernels':>7} {'traffic':>8} {'scratch KiB':>12}")
    failures = []
    for case in todo:
        row = measure(case)
        results.add(row)
        for graph, found in row["graphs"].items():
            print(f"{case.label:<18} {graph:<6} {_text(found)}", flush=True)
        failures += _failures(row)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def measure(case: Case) -> Result:
    """One row."""
    return {
        "case": case.label,
        "name": case.name,
        "options": dict(case.options(*SHAPE[2:])),
        "graphs": {graph: _figures(module) for graph, module in _modules(case).items()},
    }


def _failures(row: Result) -> list[str]:
    form, source = row["graphs"]["gpu"], row["graphs"]["naive"]
    if "refused" in form:
        return [f"{row['case']}: the gpu form is refused"]
    if "refused" not in source and form["traffic"] > source["traffic"] + ROUNDING:
        return [f"{row['case']}: the gpu form moves more than the source's code"]
    return []


def _modules(case: Case) -> dict[str, nn.Module]:
    forms = {family: case.reference(SHAPE).double().export_form(SHAPE, family).float() for family in ("gpu", "cpu")}
    return {"naive": naive(case.name, case.reference(SHAPE)), **forms}


def _figures(module: nn.Module) -> Result:
    with torch.inference_mode():
        graph = onnx_from_module(module.eval(), torch.zeros(SHAPE), REQUEST)
    try:
        engine = engine_from_onnx(graph.SerializeToString(), compute_capability=COMPUTE_CAPABILITY)
    except DeployAttnError as error:
        return {"refused": str(error)}
    if engine.traffic_bytes is None:
        raise RuntimeError("a graph of fixed shapes has an open size")
    return {
        "kernels": engine.kernel_count,
        "traffic": round(engine.traffic_bytes / PASS_BYTES, 2),
        "scratch_bytes": engine.scratch_bytes,
    }


def _text(found: Result) -> str:
    if "refused" in found:
        return "refused"
    return f"{found['kernels']:7d} {found['traffic']:8.2f} {found['scratch_bytes'] // 1024:12d}"


def _head() -> Result:
    return {
        "versions": versions("torch", "onnx", "tensorrt_rtx"),
        "shape": shape_text(SHAPE),
        "opset": REQUEST.opset,
        "precision": "float32",
        "compute_capability": COMPUTE_CAPABILITY,
        "unit_of_traffic": f"{PASS_BYTES} bytes: the map read once and written once",
    }


if __name__ == "__main__":
    sys.exit(main())
