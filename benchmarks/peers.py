"""Each module's artifact against what a user would pick instead, side by side, in FP32 on one CPU thread.

Run by hand on a quiet machine: `python benchmarks/peers.py`, or for some rows
only `--names se cbam --shapes 1x256x28x28`. It needs `pip install
'deploy-attn[peers]'` and a C++ compiler. Every rival starts from the source's
code with the artifact's weights and must compute the same; each is compared
with the artifact by the protocol of `deploy-attn bench`, two at a time, with a
control of its own. Beside them stands the artifact as one operator, as
`deploy-attn fuse` writes it, for modules that have one. Exit code 1 if something
could not be compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cases import MEASURED, Case, Result, Results, cases, machine, name_argument, shape_from_text, shape_text, versions

from deploy_attn import BenchOptions, ExportRequest, bench, export_artifact, fuse
from deploy_attn.engines.fused.library import SYSTEMS
from deploy_attn.engines.latency.protocol import Effort
from deploy_attn.engines.latency.result import Comparison
from deploy_attn.modules.catalogue import Shape
from deploy_attn.rivals.rival import RIVALS

SHAPES: tuple[Shape, ...] = ((1, 256, 28, 28), (1, 64, 56, 56))
OURS = "fused"
PICKED = tuple(name for name in RIVALS if name != OURS)
METHOD = {
    "precision": "fp32",
    "threads": 1,
    "spinning": False,
    "cache": "hot",
    "pairs": "30 to 1000 by a time budget, in blocks; a block in which something else ran is repeated",
    "ratio": "rival / artifact within a pair: above 1 the artifact is faster",
    "error": "how far from 1 the median of the artifact against itself may lie, in the same run",
}


def main() -> int:
    """Measures, prints a line a rival, and says what could not be compared."""
    wanted = _arguments()
    todo = [(case, shape) for case in cases(wanted.names) for shape in wanted.shapes]
    renewed = [(case.label, shape_text(shape)) for case, shape in todo]
    packages = ("torch", "onnx", "onnxruntime", "onnxsim", "onnxslim", "openvino", "numpy")
    head = {"machine": machine(), "versions": versions(*packages), "method": METHOD}
    results = Results(wanted.output, head, ("case", "shape"), renewed)
    missed = 0
    for case, shape in todo:
        row = measure(case, shape, wanted.rivals, wanted.seconds)
        results.add(row)
        missed += sum("reason" in found for found in row["rivals"].values())
    return 1 if missed else 0


def measure(case: Case, shape: Shape, rivals: Sequence[str], seconds: float) -> Result:
    """One row: the artifact against each rival, and against itself as one operator."""
    options = dict(case.options(*shape[2:]))
    with tempfile.TemporaryDirectory() as folder:
        request = ExportRequest(case.name, shape=shape, options=options, output=Path(folder) / "artifact")
        artifact = export_artifact(request).folder
        if case.name in SYSTEMS:
            fuse(artifact)
            rivals = (*rivals, OURS)
        report = bench(artifact, BenchOptions(against=tuple(rivals), threads=1, effort=Effort(seconds=seconds)))
    found: dict[str, Result] = {
        record.comparison.baseline.label: _figures(record.comparison) for record in report.records
    }
    found.update({one.baseline: {"reason": one.reason} for one in report.not_compared})
    for name, figures in found.items():
        print(f"{case.label:<18} {shape_text(shape):<12} {name:<9} {_said(figures)}", flush=True)
    times = [statistics.median(record.comparison.pairs.second_s) for record in report.records]
    return {
        "case": case.label,
        "name": case.name,
        "shape": shape_text(shape),
        "options": options,
        "microseconds": round(1e6 * statistics.median(times)) if times else None,
        "rivals": {name: found[name] for name in rivals},
    }


def _figures(found: Comparison) -> Result:
    return {
        "ratio": found.pairs.as_dict(),
        "control": found.control.as_dict(),
        "error": round(found.error, 4),
        "microseconds": round(1e6 * statistics.median(found.pairs.first_s)),
        "claimed": found.claim is not None,
        "spoiled": found.blocks.spoiled,
    }


def _said(figures: Result) -> str:
    if "reason" in figures:
        return f"not compared: {figures['reason']}"
    ratio = figures["ratio"]
    spread = f"({ratio['p10']:.2f}..{ratio['p90']:.2f}, n={ratio['pairs']})"
    note = f"  {figures['spoiled']} blocks spoiled" if figures["spoiled"] else ""
    return f"{ratio['median']:6.2f} {spread}  +- {figures['error']:.3f}  {figures['microseconds']} us{note}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Artifacts against what a user would pick instead, on a CPU.")
    parser.add_argument("--names", nargs="+", type=name_argument, default=(), help="only these modules")
    parser.add_argument("--shapes", nargs="+", type=shape_from_text, default=SHAPES, help="only these, as 1x256x28x28")
    parser.add_argument("--rivals", nargs="+", choices=PICKED, default=PICKED, help="only these")
    parser.add_argument("--seconds", type=float, default=4.0, help="about so long for a comparison; slow ones longer")
    parser.add_argument("--output", type=Path, default=MEASURED / "peers.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
