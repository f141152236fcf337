"""Which operators the exported graphs hold, target by target: `python benchmarks/operators.py`, deterministic."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import torch
from cases import MEASURED, Case, Result, Results, cases, name_argument, shape_text, versions

from deploy_attn.engines.target import load_target
from deploy_attn.export.inputs import noise_inputs
from deploy_attn.export.onnx_from_module import INPUT, GraphRequest, onnx_from_module
from deploy_attn.export.simplify import simplify
from deploy_attn.modules.catalogue import Shape

SHAPE: Shape = (1, 256, 28, 28)
TARGETS = ("jetson-nano", "onnxruntime-cpu")


def main() -> int:
    """Exports every case for every target, and writes what is in its graph."""
    parser = argparse.ArgumentParser(description="Operators of the exported graphs.")
    parser.add_argument("--names", nargs="+", type=name_argument, default=(), help="only these modules")
    parser.add_argument("--output", type=Path, default=MEASURED / "ops.json")
    wanted = parser.parse_args()
    todo = [(case, target) for case in cases(wanted.names) for target in TARGETS]
    head = {"versions": versions("torch", "onnx", "onnxsim"), "shape": shape_text(SHAPE)}
    results = Results(wanted.output, head, ("case", "target"), [(case.label, target) for case, target in todo])
    for case, target in todo:
        row = operators(case, target)
        results.add(row)
        print(f"{row['case']:<18} {row['target']:<18} {sum(row['operators'].values()):4d}", flush=True)
    return 0


def operators(case: Case, name: str) -> Result:
    """One row: how often each operator stands in the graph that an export for this target writes."""
    target = load_target(name)
    request = GraphRequest(target.opset, target.ir_version)
    x = noise_inputs(SHAPE, seed=0, severe=False)["normal"]
    form = case.reference(SHAPE).double().export_form(SHAPE, target.family).float().eval()
    with torch.inference_mode():
        traced = onnx_from_module(form, torch.from_numpy(x), request)
    graph = simplify(traced, {INPUT: x}, request).model.graph
    return {
        "case": case.label,
        "name": case.name,
        "target": name,
        "opset": target.opset,
        "family": target.family,
        "operators": dict(sorted(Counter(node.op_type for node in graph.node).items())),
    }


if __name__ == "__main__":
    sys.exit(main())
