"""The network as it stands through torch.compile with its default backend."""

from __future__ import annotations

import time
import warnings
from contextlib import ExitStack
from dataclasses import replace

from deploy_attn.jetson.errors import BadRequest, first_line
from deploy_attn.rivals.in_torch import torch_entrant
from deploy_attn.rivals.rival import Entrant, Ground


def entrant(ground: Ground, held: ExitStack) -> Entrant:
    import torch

    began = time.perf_counter()
    compiled = torch.compile(ground.network)
    held.callback(torch.compiler.reset)  # which fails, in place of what ended it, where the compiler is half loaded
    found = torch_entrant("compile", compiled, ground, held, {"compiled": True})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.candidate.call()  # which compiles
    except Exception as error:  # the compiler raises many types
        raise BadRequest(
            f"torch.compile does not take the network: {first_line(error)}. Its CPU backend needs a C++ compiler."
        ) from error
    conditions = {**found.candidate.conditions, "compile_s": round(time.perf_counter() - began, 1)}
    return Entrant(replace(found.candidate, conditions=conditions), found.infer)
