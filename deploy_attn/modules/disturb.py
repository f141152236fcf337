"""Weights that no training gave -> weights with which a check means something.

Some modules start as the identity: a scale of zero, a BatchNorm that does
nothing. Any graph equals them there, whatever it computes otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def disturb_constants(module: nn.Module) -> None:
    """Adds noise to every parameter and statistic whose values are all equal; others are left alone.

    The noise is torch's: set its seed for the same weights again. Variances
    stay positive; a single value counts as constant.
    """
    with torch.no_grad():
        for child in module.modules():
            for name, tensor in (*child.named_parameters(recurse=False), *_statistics(child)):
                if bool((tensor == tensor.flatten()[0]).all()):
                    tensor.add_(_noise(tensor, positive=name == "running_var"))


def _statistics(module: nn.Module) -> list[tuple[str, Tensor]]:
    """A normalisation's running mean and variance; other buffers, as a DCT, are no weights."""
    names = ("running_mean", "running_var")
    return [(name, buffer) for name, buffer in module.named_buffers(recurse=False) if name in names]


def _noise(tensor: Tensor, positive: bool) -> Tensor:
    return torch.rand_like(tensor) if positive else 0.5 * torch.randn_like(tensor)
