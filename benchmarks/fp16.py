"""How far FP16 graphs are from float64: the planned graph, and the source's code in plain half precision.

`python benchmarks/fp16.py`, or for some rows only `--names s2 gct`. Deterministic
but for the last digits; no timing, so the machine need not be quiet. Weights and
inputs are synthetic: standard normal noise, the same with a mean of 20 sigma in
every channel, and 100 times the noise. The plan is the one that an export makes.

`optimistic` is the typed graph in onnxruntime on a CPU, which computes FP16
nodes in FP32 and hides overflow; `pessimistic` rounds at every FP16 node, which
no engine does. Plain half is every node in FP16 that has an FP16 form, rounded
at every node, inputs included.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from cases import MEASURED, Case, Result, Results, cases, machine, name_argument, shape_text, versions
from torch import nn

from deploy_attn.engines.target import load_target
from deploy_attn.export.inputs import noise_inputs
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import plain_half_plan
from deploy_attn.export.reference import reference_cases
from deploy_attn.export.refine import comparisons, plan_for, rounded_comparisons
from deploy_attn.export.simplify import simplify
from deploy_attn.export.typed import typed_from_plan
from deploy_attn.jetson.artifact import Case as ParityCase
from deploy_attn.jetson.metrics import Comparison, finite_or_none
from deploy_attn.modules.catalogue import Shape
from deploy_attn.modules.naive_forms import naive

SHAPE: Shape = (1, 64, 56, 56)
TARGETS = ("onnxruntime-cpu", "jetson-nano")
METHOD = {
    "shape": shape_text(SHAPE),
    "inputs": {
        "normal": "standard normal noise",
        "far_mean": "the same with a mean of +20 or -20 in each channel",
        "large": "100 times the noise",
    },
    "error": "||output - reference|| / ||reference||, the reference in float64; null where anything is not finite",
    "non_finite": "fraction of the output's elements that are NaN or infinite",
}


def main() -> int:
    """Measures and prints a line a case; exit code 1 if a planned graph gives NaN or infinity."""
    parser = argparse.ArgumentParser(description="Errors of FP16 graphs against float64.")
    parser.add_argument("--names", nargs="+", type=name_argument, default=(), help="only these modules")
    parser.add_argument("--output", type=Path, default=MEASURED / "fp16.json")
    wanted = parser.parse_args()
    todo = cases(wanted.names)
    head = {"machine": machine(), "versions": versions("torch", "onnx", "onnxruntime", "numpy"), "method": METHOD}
    results = Results(wanted.output, head, ("case",), [(case.label,) for case in todo])
    overflows = False
    for case in todo:
        row = measure(case)
        results.add(row)
        print(_line(row), flush=True)
        overflows |= any(error is None for planned in row["planned"].values() for error in _errors(planned))
        gc.collect()
    return 1 if overflows else 0


def measure(case: Case) -> Result:
    """One row: plain half of the source's code, and the planned graph of each target."""
    reference = case.reference(SHAPE)
    parity = reference_cases(reference, noise_inputs(SHAPE, seed=0, severe=True))
    source = _graph(naive(case.name, reference), parity, GraphRequest(17, 8))
    plain = rounded_comparisons(source, plain_half_plan(source), parity)
    del source
    return {
        "case": case.label,
        "name": case.name,
        "options": dict(case.options(*SHAPE[2:])),
        "plain_half": {name: _figures(comparison["output"]) for name, comparison in plain.items()},
        "planned": {target: _planned(case, parity, target) for target in TARGETS},
    }


def _planned(case: Case, parity: list[ParityCase], name: str) -> Result:
    """Errors in both brackets of the graph that an export for this target writes."""
    target = load_target(name)
    request = GraphRequest(target.opset, target.ir_version)
    form = case.reference(SHAPE).double().export_form(SHAPE, target.family).float()
    graph = simplify(_graph(form, parity, request), parity[0].inputs, request).model
    plan = plan_for(graph, parity)
    pessimistic = rounded_comparisons(graph, plan, parity)
    optimistic = comparisons(typed_from_plan(graph, plan), parity)
    return {
        "fp16_nodes": plan.count("fp16"),
        "fp32_nodes": plan.count("fp32"),
        **{
            one.name: {
                "optimistic": _figures(optimistic[one.name]["output"])["error"],
                "pessimistic": _figures(pessimistic[one.name]["output"])["error"],
            }
            for one in parity
        },
    }


def _graph(module: nn.Module, parity: list[ParityCase], request: GraphRequest) -> onnx.ModelProto:
    with torch.inference_mode():
        x: np.ndarray[Any, Any] = next(iter(parity[0].inputs.values()))
        return onnx_from_module(module.float().eval(), torch.from_numpy(x), request)


def _figures(comparison: Comparison) -> Result:
    error = finite_or_none(comparison.rms_relative)
    elements = SHAPE[0] * SHAPE[1] * SHAPE[2] * SHAPE[3]
    return {
        "error": None if error is None else float(f"{error:.1e}"),
        "non_finite": float(f"{comparison.non_finite / elements:.1e}"),
    }


def _errors(planned: Result) -> list[float | None]:
    return [error for part in planned.values() if isinstance(part, dict) for error in part.values()]


def _line(row: Result) -> str:
    plain = " ".join(_text(figures["error"]) for figures in row["plain_half"].values())
    planned = "   ".join(
        f"{target} {part['fp16_nodes']}+{part['fp32_nodes']}: " + " ".join(map(_text, _errors(part)))
        for target, part in row["planned"].items()
    )
    return f"{row['case']:<18} plain half {plain}   {planned}"


def _text(error: float | None) -> str:
    return "overflow" if error is None else f"{error:.1e}"


if __name__ == "__main__":
    sys.exit(main())
