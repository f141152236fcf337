"""Who is recognised, a family a file. Earlier rows are asked first; within a row, likelier readings come first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.rewriting.families import (
    bam,
    catalogue,
    cbam,
    coordinate,
    cot,
    eca,
    global_context,
    mhsa,
    non_local,
    parnet,
    pasted,
    se,
    shuffle,
    simam,
    sk,
    split_attn,
    token_attention,
    triplet,
)

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.rewriting.match import Match

RECOGNISERS = (
    catalogue.recognise,
    cbam.recognise,  # before se: its channel gate has the layers of one
    se.recognise,
    eca.recognise,
    simam.recognise,
    triplet.recognise,
    shuffle.recognise,
    coordinate.recognise,
    global_context.recognise,
    bam.recognise,
    pasted.recognise,
    sk.recognise,
    split_attn.recognise,
    parnet.recognise,
    cot.recognise,
    mhsa.recognise,
    non_local.recognise,
    token_attention.recognise,
)


def matches_of(module: nn.Module) -> Iterator[Match]:
    """Every reading of a module, the likeliest first. Nothing is proven here.

    A scripted module is read by nobody: its parts are not what Python sees of it.
    """
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return
    for recognise in RECOGNISERS:
        yield from recognise(module)
