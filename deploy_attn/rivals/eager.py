"""The network as it stands in PyTorch's eager mode."""

from __future__ import annotations

from contextlib import ExitStack

from deploy_attn.rivals.in_torch import torch_entrant
from deploy_attn.rivals.rival import Entrant, Ground


def entrant(ground: Ground, held: ExitStack) -> Entrant:
    return torch_entrant("eager", ground.network, ground, held, {"compiled": False})
