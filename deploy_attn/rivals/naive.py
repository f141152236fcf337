"""The network as it stands, exported by PyTorch and given to onnxruntime."""

from __future__ import annotations

from contextlib import ExitStack

from deploy_attn.rivals.in_onnxruntime import graph_entrant
from deploy_attn.rivals.rival import Entrant, Ground


def entrant(ground: Ground, held: ExitStack) -> Entrant:
    return graph_entrant("naive", ground.graph, ground, held, {"graph": "plain export"})
