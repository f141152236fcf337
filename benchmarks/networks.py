"""What an export does for whole networks in onnxruntime on one CPU thread, as paired ratios against the plain export.

Run by hand on a quiet machine: `python benchmarks/networks.py`, or `--names seresnet50`. Before is
`torch.onnx.export` of the network as it stands; after is model.onnx of its artifact, both at opset 17. Each graph
runs at its better optimisation level, which a short pilot chooses. Exit code 1 if an artifact's verdict fails, the
two differ, or the export is slower by more than the control pair's error bar.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the networks are those of the tests
from cases import MEASURED, Result, Results, machine, versions

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.engines.latency.result import error_bar
from deploy_attn.engines.pairs import Call, Effort, Paired, paired, warm_up
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.jetson.metrics import compare
from tests.networks.zoo import ZOO, ready

Sessions = Mapping[str, Call]

ROOT = Path(__file__).resolve().parents[1]
LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}
METHOD = {
    "opset": 17,
    "threads": 1,
    "spinning": False,
    "ratio": "before / after within a pair: above 1 the export gains",
}
APART = 1e-4  # RMS relative, of two FP32 graphs of one function
LEAST = 0.02  # no difference below this is one
PILOT = Effort(2.0, least=10, least_if_slow=6)


def main() -> int:
    """Measures, prints a line a network, and says whether each is as fast as its plain export."""
    wanted = _arguments()
    names = wanted.names or list(ZOO)
    head = {"machine": machine(), "versions": versions("torch", "timm", "onnx", "onnxruntime"), "method": METHOD}
    results = Results(wanted.output, head, ("name",), [(name,) for name in names])
    failures = []
    for name in names:
        row = measure(name, Effort(wanted.seconds, least=60, least_if_slow=30))
        results.add(row)
        ratio = row["ratio"]
        print(
            f"{name:<32} {row['blocks']:>3} blocks  {ratio['median']:.3f} ({ratio['p10']:.2f}..{ratio['p90']:.2f}, "
            f"n={ratio['pairs']}) +- {row['error']:.3f}  {row['ms']['before']} -> {row['ms']['after']} ms  "
            f"export {row['export_s']} s",
            flush=True,
        )
        if ratio["median"] < 1 - max(row["error"], LEAST):
            failures.append(f"{name}: {ratio['median']} of the plain export's speed")
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


def measure(name: str, effort: Effort) -> Result:
    """One row.

    Raises:
        SystemExit: the artifact does not hold, or the two graphs differ.
    """
    network = ready(name).eval()
    x = torch.randn(ZOO[name].shape)
    with torch.inference_mode():
        plain = onnx_from_module(network, x, GraphRequest(17, 8)).SerializeToString()
    began = time.perf_counter()
    exported, blocks = _exported(name)
    export_s = time.perf_counter() - began
    feed = {"input": x.numpy()}
    before, after = (_sessions(graph, feed) for graph in (plain, exported))
    apart = compare(np.asarray(after["all"]()), np.asarray(before["all"]())).rms_relative
    if not apart <= APART:
        raise SystemExit(f"{name}: before and after are {apart:.1e} apart")
    levels = {"before": _better(before), "after": _better(after)}
    found = paired(before[levels["before"]], after[levels["after"]], effort)
    other = _sessions(plain, feed)[levels["before"]]
    control = paired(before[levels["before"]], other, effort)
    return {
        "name": name,
        "blocks": blocks,
        "ratio": found.as_dict(),
        "control": control.as_dict(),
        "error": round(error_bar(control), 4),
        "ms": {"before": _ms(found.first_s), "after": _ms(found.second_s)},
        "levels": levels,
        "export_s": round(export_s, 1),
        "rms_relative_apart": float(f"{apart:.1e}"),
    }


def _exported(name: str) -> tuple[bytes, int]:
    """The FP32 graph of the network's artifact, and how many attention blocks were replaced."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.py"
        text = f"from tests.networks.zoo import ready\n\n\ndef build():\n    return ready({name!r})\n"
        file.write_text(text, encoding="utf-8")
        wanted = ExportRequest(f"{file}:build", shape=ZOO[name].shape, output=Path(folder) / "artifact")
        report = export_artifact(wanted)
        if not report.passed:
            raise SystemExit(f"{name}: the artifact does not hold: {report.verdict.as_dict()}")
        blocks = sum(len(finding.paths) for finding in report.findings if finding.replaced)
        return (report.folder / "model.onnx").read_bytes(), blocks


def _sessions(graph: bytes, feed: Mapping[str, Any]) -> Sessions:
    """A call of a graph at each level, warm."""
    calls: dict[str, Call] = {}
    for level, value in LEVELS.items():
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = value
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        calls[level] = _call(session, feed)
        warm_up(calls[level])
    return calls


def _call(session: ort.InferenceSession, feed: Mapping[str, Any]) -> Call:
    return lambda: session.run(None, feed)[0]


def _better(sessions: Sessions) -> str:
    pilot: Paired = paired(sessions["all"], sessions["extended"], PILOT)
    return "all" if pilot.ratio <= 1 else "extended"


def _ms(times: tuple[float, ...]) -> float:
    return round(1e3 * statistics.median(times), 2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Whole networks against their plain export in onnxruntime on a CPU.")
    parser.add_argument("--names", nargs="+", choices=list(ZOO), default=(), help="only these networks")
    parser.add_argument("--seconds", type=float, default=10.0, help="about so long for each comparison")
    parser.add_argument("--output", type=Path, default=MEASURED / "networks.json")
    return parser.parse_args()


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
