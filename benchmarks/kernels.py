"""Kernels and memory traffic of the forms in TensorRT-RTX: `python benchmarks/kernels.py`, deterministic, no GPU.

The source's code, the export form of each family, and the gpu form in FP16 as
planned are built for one GPU, and the kernels of the finished engines counted.
The traffic is what all kernels read and write, without weights, in units of one
read and one write of the FP32 map: 1.0 is one pass, and 1.5 is what a gate over
the whole map costs, which reads it twice. These are static figures; the times
behind them need a GPU.

benchmarks/rtx_static.json holds them. `tests/deploy_attn/test_rtx.py` builds the
gpu forms again and takes no difference; only how long a build took may differ.

Exit code 1 if a gpu form is refused or moves more than the source's code.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from cases import Case, Result, Results, cases, name_argument, shape_text, versions
from torch import nn

from deploy_attn.engines.tensorrt_rtx import engine_from_onnx
from deploy_attn.export.inputs import noise_inputs
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.reference import reference_cases
from deploy_attn.export.refine import plan_for
from deploy_attn.export.typed import typed_from_plan
from deploy_attn.jetson.errors import DeployAttnError
from deploy_attn.modules.catalogue import Shape
from deploy_attn.modules.naive_forms import naive

if TYPE_CHECKING:
    import onnx

FIGURES = Path(__file__).resolve().parent / "rtx_static.json"

SHAPE: Shape = (1, 256, 28, 28)
REQUEST = GraphRequest(17, 8)
COMPUTE_CAPABILITY = "SM86"
SEED = 0
ROUNDING = 0.02  # a few vectors of one value a channel
PASS_BYTES = 2 * 4 * math.prod(SHAPE)


def main() -> int:
    """Builds every case, prints a line a graph, and says whether every gpu form holds."""
    parser = argparse.ArgumentParser(description="Kernels and memory traffic of the forms in TensorRT-RTX.")
    parser.add_argument("--names", nargs="+", type=name_argument, default=(), help="only these modules")
    parser.add_argument("--output", type=Path, default=FIGURES)
    wanted = parser.parse_args()
    todo = cases(wanted.names)
    results = Results(wanted.output, _head(), ("case",), [(case.label,) for case in todo])
    print(f"{'case':<18} {'graph':<8} {'kernels':>7} {'traffic':>8} {'scratch KiB':>12} {'build, s':>9}")
    failures = []
    for case in todo:
        row = measure(case)
        results.add(row)
        for graph, found in row["graphs"].items():
            print(f"{case.label:<18} {graph:<8} {_text(found)}", flush=True)
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
        "graphs": {graph: figures(made()) for graph, made in graphs(case).items()},
    }


def graphs(case: Case) -> Mapping[str, Callable[[], onnx.ModelProto]]:
    """What is built, by the name that its figures go under; each graph is made when it is asked for."""
    return {
        "naive": lambda: _traced(naive(case.name, case.reference(SHAPE))),
        "gpu": lambda: _form(case, "gpu"),
        "cpu": lambda: _form(case, "cpu"),
        "gpu_fp16": lambda: _planned(case),
    }


def figures(graph: onnx.ModelProto) -> Result:
    """The figures of one graph's engine, and how long its build took."""
    started = time.monotonic()
    try:
        engine = engine_from_onnx(graph.SerializeToString(), compute_capability=COMPUTE_CAPABILITY)
    except DeployAttnError as error:
        return {"refused": str(error)}
    if engine.traffic_bytes is None:
        raise RuntimeError("a graph of fixed shapes has an open size")
    return {
        "kernels": engine.kernel_count,
        "traffic": round(engine.traffic_bytes / PASS_BYTES, 2),
        "traffic_bytes": engine.traffic_bytes,
        "scratch_bytes": engine.scratch_bytes,
        "weights_bytes": engine.weights_bytes,
        "build_seconds": round(time.monotonic() - started, 1),
    }


def _failures(row: Result) -> list[str]:
    form, source = row["graphs"]["gpu"], row["graphs"]["naive"]
    if "refused" in form:
        return [f"{row['case']}: the gpu form is refused"]
    if "refused" not in source and form["traffic"] > source["traffic"] + ROUNDING:
        return [f"{row['case']}: the gpu form moves more than the source's code"]
    return []


def _form(case: Case, family: str) -> onnx.ModelProto:
    return _traced(case.reference(SHAPE).double().export_form(SHAPE, family).float())


def _planned(case: Case) -> onnx.ModelProto:
    """The gpu form in FP16, with the plan that an export would make on its own parity inputs."""
    inputs = noise_inputs(SHAPE, SEED, severe=True)
    form = _form(case, "gpu")
    return typed_from_plan(form, plan_for(form, reference_cases(case.reference(SHAPE), inputs)))


def _traced(module: nn.Module) -> onnx.ModelProto:
    with torch.inference_mode():
        return onnx_from_module(module.eval(), torch.zeros(SHAPE), REQUEST)


def _text(found: Result) -> str:
    if "refused" in found:
        return "refused"
    static = f"{found['kernels']:7d} {found['traffic']:8.2f} {found['scratch_bytes'] // 1024:12d}"
    return f"{static} {found['build_seconds']:9.1f}"


def _head() -> Result:
    return {
        "versions": versions("torch", "onnx", "tensorrt_rtx"),
        "shape": shape_text(SHAPE),
        "opset": REQUEST.opset,
        "precision": "float32, gpu_fp16 as planned",
        "compute_capability": COMPUTE_CAPABILITY,
        "unit_of_traffic": f"{PASS_BYTES} bytes: the FP32 map read once and written once",
    }


if __name__ == "__main__":
    sys.exit(main())
