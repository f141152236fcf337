"""A rival's graph in onnxruntime, with its default settings but for the threads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.latency.result import Candidate
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.rivals.rival import Entrant, Ground

if TYPE_CHECKING:
    import onnx


def graph_entrant(
    label: str, graph: onnx.ModelProto, ground: Ground, held: ExitStack, conditions: Mapping[str, Any]
) -> Entrant:
    """A graph as an entrant; `conditions` say how it came about."""
    runner = held.enter_context(OnnxRuntimeRunner(graph.SerializeToString(), settings=ground.settings))
    found = {**runner.conditions(), **conditions, "nodes": len(graph.graph.node)}
    candidate = Candidate(label, lambda: runner.infer(ground.feeds), found, runner.stopwatch(ground.feeds))
    return Entrant(candidate, runner.infer)
