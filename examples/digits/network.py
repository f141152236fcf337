"""A small network with attention for 8x8 grey images of digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import deploy_attn


class DigitsNet(nn.Module):
    """Two convolutions, CBAM after each, and a linear head, `b 1 8 8 -> b 10`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(1, 32)
        self.attention = deploy_attn.create("cbam", channels=32, reduction=8, kernel_size=3)
        self.body = _block(32, 64)
        self.body_attention = deploy_attn.create("cbam", channels=64, reduction=8, kernel_size=3)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(self.stem(x))
        x = torch.max_pool2d(x, 2)
        x = self.body_attention(self.body(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def build() -> nn.Module:
    """What `deploy-attn export network.py:build` calls."""
    return DigitsNet()
