"""The plain export, simplified by onnxsim, in onnxruntime."""

from __future__ import annotations

import os
from contextlib import ExitStack
from importlib import metadata

from deploy_attn.export.stdout import stderr_to, stdout_to
from deploy_attn.rivals.in_onnxruntime import graph_entrant
from deploy_attn.rivals.rival import Entrant, Ground


def entrant(ground: Ground, held: ExitStack) -> Entrant:
    import onnxsim

    graph = ground.graph
    with stdout_to(os.devnull), stderr_to(os.devnull):
        simplified, same = onnxsim.simplify(graph)
    conditions = {"graph": f"plain export, onnxsim {metadata.version('onnxsim')}", "checked_by_onnxsim": bool(same)}
    return graph_entrant("onnxsim", simplified, ground, held, conditions)
