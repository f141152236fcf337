"""ScatterND and ScatterElements without an attribute that says what is so without it."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench


def without_reduction(bench: Bench) -> str | None:
    """`none` is what opset 13 does, and what TensorRT 10.0 to 10.6 refuses to read."""
    parser_objects = bench.found and bench.aim.parser is not None
    if bench.attribute("reduction") != "none" or not (bench.lowered_below(16) or parser_objects):
        return None
    kept = {"axis": bench.attribute("axis")} if bench.node.op_type == "ScatterElements" else {}
    bench.finish(bench.node.op_type, bench.node.input, **kept)
    return "reduction none dropped"
