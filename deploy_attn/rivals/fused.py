"""The artifact's module as one fused operator, as `deploy-attn fuse` left it in the folder: FP32 on one thread."""

from __future__ import annotations

from contextlib import ExitStack

from deploy_attn.engines.fused.engine import FusedRunner
from deploy_attn.engines.fused.graph_file import stored_graph
from deploy_attn.engines.latency.runners import candidate_from_runner
from deploy_attn.rivals.rival import Entrant, Ground


def entrant(ground: Ground, held: ExitStack) -> Entrant:
    runner = FusedRunner(stored_graph(ground.artifact))
    return Entrant(candidate_from_runner("fused", runner, ground.feeds, held), runner.infer)
