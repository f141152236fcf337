"""The plain export, simplified by onnxslim, in onnxruntime."""

from __future__ import annotations

import os
from contextlib import ExitStack
from importlib import metadata

from deploy_attn.export.stdout import stdout_to
from deploy_attn.rivals.in_onnxruntime import graph_entrant
from deploy_attn.rivals.rival import Entrant, Ground


def entrant(ground: Ground, held: ExitStack) -> Entrant:
    import onnx
    import onnxslim

    copied = onnx.load_from_string(ground.graph.SerializeToString())  # it may change what it is given
    with stdout_to(os.devnull):
        slimmed = onnxslim.slim(copied)
    conditions = {"graph": f"plain export, onnxslim {metadata.version('onnxslim')}"}
    return graph_entrant("onnxslim", slimmed, ground, held, conditions)
