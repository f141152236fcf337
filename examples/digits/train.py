"""Trains DigitsNet on scikit-learn's bundled images of handwritten digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from network import DigitsNet
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

Array = np.ndarray[Any, np.dtype[Any]]

EPOCHS = 12
BATCH = 64


def digits() -> tuple[Array, Array, Array, Array]:
    """Training images, held-out images (`n 1 8 8`, 0..1) and their labels; 1257 and 540 of them."""
    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)[:, None]
    train_x, test_x, train_y, test_y = train_test_split(
        images, data.target.astype(np.int64), test_size=0.3, random_state=0, stratify=data.target
    )
    return train_x, test_x, train_y, test_y


def train(seed: int = 0, epochs: int = EPOCHS) -> nn.Module:
    """Trains from scratch; a few seconds on two cores."""
    torch.manual_seed(seed)
    train_x, _, train_y, _ = digits()
    images, labels = torch.from_numpy(train_x), torch.from_numpy(train_y)
    network = DigitsNet()
    steps = epochs * -(-len(images) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(BATCH):
            optimiser.zero_grad()
            loss = _loss(network, images[chosen], labels[chosen])
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def _loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(network(images), labels)
