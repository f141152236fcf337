"""Stored measurements as `bench` leaves them, without measuring; and artifacts as an attacker would have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from deploy_attn.engines.machine_limits import Limits
from deploy_attn.jetson.artifact import file_sha256, manifest_sha256
from tests.engines.latency.fakes import LIMITS

Document = dict[str, Any]

HOST = "verdict-onnxruntime.json"
NASTY = "<script>window.hacked = 1</script>\"'><img src=x onerror=hacked()>$\\alpha$|`&amp;\u202e{{7*7}}\ud800\x1b[31m"

CONDITIONS: Document = {
    "threads": 1,
    "cache": "hot",
    "order": "random within each pair",
    "warm_up": {"candidate": {"calls": 40, "settled": True}},
    "machine": {"cpu": "A Processor @ 2.00GHz", "cpus": 2, "system": "Linux", "governor": None},
}


def latency(median: float, n: int = 60) -> Document:
    """Times about a median, with a tail, in milliseconds."""
    draw = np.random.default_rng(n)
    values = median * (0.95 + 0.1 * draw.random(n) + 0.3 * draw.random(n) ** 9)
    p10, middle, p90, p99 = (float(value) for value in np.percentile(values, [10, 50, 90, 99]))
    quantiles = [float(value) for value in np.percentile(values, range(0, 101, 5))]
    shares = {"median_ms": middle, "p10_ms": p10, "p90_ms": p90, "p99_ms": p99}
    return {"n": n, **shares, "min_ms": quantiles[0], "max_ms": quantiles[-1], "quantiles_ms": quantiles}


def comparison(precision: str, baseline: str, ratio: float, milliseconds: float, **more: Any) -> Document:
    """One that found the candidate `ratio` times as fast as the baseline."""
    return {
        "precision": precision,
        "when": "2026-01-02T03:04:05+00:00",
        "candidate": {"label": "candidate", "latency": latency(milliseconds), "conditions": {"engine": "onnxruntime"}},
        "baseline": {"label": baseline, "latency": latency(milliseconds * ratio), "conditions": {}},
        "ratio": {"median": ratio, "p10": round(ratio * 0.9, 3), "p90": round(ratio * 1.1, 3), "pairs": 60},
        "control": {"median": 1.01, "p10": 0.96, "p90": 1.05, "pairs": 60},
        "error": 0.02,
        "blocks": {"kept": 12, "repeated": 0, "spoiled": 0, "reasons": []},
        "claim": f"candidate is {ratio:.2f} times as fast as {baseline}.",
        "refused": None,
        "conditions": CONDITIONS,
        **more,
    }


def under_a_roof(limits: Limits, cache: str = "hot") -> Document:
    """Conditions of a comparison beside which the machine's limits were measured."""
    told = {"threads": limits.threads, "cache": cache, "limits": limits.as_dict()}
    return {**CONDITIONS, **told}


def write_bench(folder: Path, *comparisons: Document, **more: Any) -> Path:
    """bench-onnxruntime.json of the artifact in a folder."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    document = {
        "schema_version": 1,
        "engine": "onnxruntime",
        "name": manifest["name"],
        "artifact_sha256": manifest["manifest_sha256"],
        "comparisons": list(comparisons),
        **more,
    }
    file = folder / "bench-onnxruntime.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def measured(folder: Path) -> Path:
    return write_bench(folder, comparison("fp32", "naive", 1.5, 0.2), comparison("fp16", "naive", 0.75, 0.3))


def rewritten(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """An artifact whose manifest was changed by who also mended its hashes, as an attacker would."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    manifest["files"] = {name: file_sha256(str(folder / name)) for name in manifest["files"]}
    manifest["manifest_sha256"] = manifest_sha256(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")
    verdict = json.loads((folder / HOST).read_text(encoding="utf-8"))
    verdict["conditions"]["artifact_sha256"] = manifest["manifest_sha256"]
    (folder / HOST).write_text(json.dumps(verdict), encoding="utf-8")


def changed(file: Path, change: Callable[[Any], object]) -> None:
    found = json.loads(file.read_text(encoding="utf-8"))
    change(found)
    file.write_text(json.dumps(found), encoding="utf-8")


def hostile(folder: Path) -> None:
    """Every text that a page shows, as an attacker would have it."""
    model = onnx.load(folder / "model.onnx")
    model.graph.node[0].name = NASTY[: NASTY.index("\ud800")]
    onnx.save(model, folder / "model.onnx")
    nodes = [{"node": model.graph.node[0].name, "op_type": NASTY, "precision": "fp32", "reason": NASTY, "largest": 1.0}]
    plan = {"nodes": nodes, "tensors": {NASTY: {"largest": 3.0, "headroom": 2.0}}, "weights_below_fp16_normal": 1}
    (folder / "precision_plan.json").write_text(json.dumps(plan), encoding="utf-8")
    named = {"name": NASTY, "target": NASTY, "tools": {NASTY: NASTY}, "inputs": {NASTY: {"shape": [NASTY, 2]}}}
    rewritten(folder, lambda manifest: (manifest.pop("input"), manifest.update(named)))
    sides = {
        side: {"label": NASTY, "latency": latency(1.0), "conditions": {NASTY: NASTY}}
        for side in ("candidate", "baseline")
    }
    blocks = {"kept": 1, "repeated": 1, "spoiled": 1, "reasons": [NASTY]}
    limits: Document = {
        **LIMITS.as_dict(),
        "kernels": dict.fromkeys(LIMITS.kernels, NASTY),
        "versions": {NASTY: NASTY},
        "disturbed": NASTY,
    }
    conditions: Document = {"cache": NASTY, "machine": {"cpu": NASTY}, NASTY: [NASTY, {NASTY: NASTY}]}
    conditions |= {"threads": LIMITS.threads, "limits": limits}
    write_bench(
        folder, {**comparison("fp32", NASTY, 1.5, 1.0, claim=NASTY, blocks=blocks, conditions=conditions), **sides}
    )
    verdict = json.loads((folder / HOST).read_text(encoding="utf-8"))
    verdict["conditions"].update({"host": NASTY, NASTY: NASTY, "version": NASTY})
    verdict.update(warnings=[NASTY], problems=[NASTY], passed=False, engine="onnxruntime")
    for check in verdict["checks"]:
        check.update(graph=NASTY, case=NASTY, output=NASTY, bracket=NASTY)
    (folder / HOST).write_text(json.dumps(verdict), encoding="utf-8")
