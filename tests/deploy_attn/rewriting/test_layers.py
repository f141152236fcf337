"""Weights that a module gives to functions itself are read as layers; what only looks like them is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.rewriting.layers import layers_of
from tests.deploy_attn.rewriting.stem import check_in_onnxruntime, check_left_alone, check_replaced, network_with

C, H = 16, 4


class Held(nn.Module):
    """A module with parameters of these shapes."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def held(self, name: str) -> Tensor:
        return self.get_parameter(name)


class Kernels(Held):
    """Squeeze-and-excitation by 1x1 kernels with biases."""

    def __init__(self) -> None:
        super().__init__(w1=(H, C, 1, 1), w2=(C, H, 1, 1), b1=(H,), b2=(C,))

    def score(self, x: Tensor) -> Tensor:
        hidden = functional.relu(functional.conv2d(x, self.held("w1"), self.held("b1")))
        return functional.conv2d(hidden, self.held("w2"), self.held("b2"))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.score(functional.adaptive_avg_pool2d(x, 1)))


class Matrices(Held):
    """Squeeze-and-excitation by matrices."""

    def __init__(self) -> None:
        super().__init__(down=(H, C), up=(C, H))

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(functional.linear(x.mean((2, 3)), self.held("down")))
        return x * torch.sigmoid(functional.linear(hidden, self.held("up")))[:, :, None, None]


class Rows(nn.Module):
    """Squeeze-and-excitation by convolutions of a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(nn.Conv1d(C, H, 1), nn.BatchNorm1d(H), nn.ReLU(), nn.Conv1d(H, C, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.steps(x.flatten(2).mean(2, keepdim=True))
        return x * gate[..., None]


class Neighbours(Held):
    """Efficient channel attention."""

    def __init__(self) -> None:
        super().__init__(taps=(1, 1, 3), level=(1,))

    def row(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))[:, None]

    def forward(self, x: Tensor) -> Tensor:
        gate = functional.conv1d(self.row(x), self.held("taps"), self.held("level"), padding=1)
        return x * torch.sigmoid(gate)[:, 0, :, None, None]


class Around(Neighbours):
    def forward(self, x: Tensor) -> Tensor:
        row = functional.pad(self.row(x), (1, 1), mode="circular")
        return x * torch.sigmoid(functional.conv1d(row, self.held("taps"), self.held("level")))[:, 0, :, None, None]


class NormedNeighbours(nn.Module):
    """Efficient channel attention with a BatchNorm before the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 1, 3, padding=1), nn.BatchNorm1d(1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.norm(self.conv(x.mean((2, 3))[:, None])))[:, 0, :, None, None]


class Block(Held):
    """A channel gate and a spatial gate."""

    def __init__(self) -> None:
        super().__init__(w1=(H, C, 1, 1), w2=(C, H, 1, 1), places=(1, 2, 5, 5))

    def gate(self, x: Tensor) -> Tensor:
        return functional.conv2d(functional.relu(functional.conv2d(x, self.held("w1"))), self.held("w2"))

    def spots(self, x: Tensor) -> Tensor:
        planes = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return functional.conv2d(planes, self.held("places"), padding=2)

    def forward(self, x: Tensor) -> Tensor:
        means, maxima = functional.adaptive_avg_pool2d(x, 1), functional.adaptive_max_pool2d(x, 1)
        gated = x * torch.sigmoid(self.gate(means) + self.gate(maxima))
        return gated * torch.sigmoid(self.spots(gated))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Kernels(), "se"),
        (Matrices(), "se"),
        (Rows(), "se"),
        (Neighbours(), "eca"),
        (Around(), "eca"),
        (NormedNeighbours(), "eca"),
        (Block(), "cbam"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_weights_without_layers_are_found_and_replaced(module: nn.Module, name: str) -> None:
    check_replaced(network_with(module, C), name)


class OneBias(Kernels):
    def score(self, x: Tensor) -> Tensor:
        hidden = functional.relu(functional.conv2d(x, self.held("w1")) + self.held("b1").square().reshape(-1, 1, 1))
        return functional.conv2d(hidden, self.held("w2"), self.held("b2"))


class Squared(Matrices):
    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(functional.linear(x.mean((2, 3)), self.held("down").square()))
        return x * torch.sigmoid(functional.linear(hidden, self.held("up")))[:, :, None, None]


class Flipped(Neighbours):
    def row(self, x: Tensor) -> Tensor:
        return super().row(x).flip(2)


class Strided(Block):
    def spots(self, x: Tensor) -> Tensor:
        planes = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return functional.conv2d(functional.pad(planes, (2, 2, 2, 2), mode="circular"), self.held("places"))


class EveryOther(Rows):
    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.steps(x.flatten(2)[:, :, ::2].mean(2, keepdim=True))
        return x * gate[..., None]


@pytest.mark.parametrize(
    "module", [OneBias(), Squared(), Flipped(), Strided(), EveryOther()], ids=lambda each: type(each).__name__
)
def test_the_same_weights_used_otherwise_are_left_alone(module: nn.Module) -> None:
    check_left_alone(network_with(module, C))


@pytest.mark.parametrize(
    "module",
    [
        Held(),
        Held(gamma=(C,)),
        Held(w=(C, C), gamma=(H,)),
        Held(w=(C, C), one=(C,), two=(C,)),
        Held(w=(C, C), scale=()),
        Held(w=(C, C, 1, 1, 1)),
        Held(w=(0, C), v=(C, 0)),
        nn.PReLU(),
        nn.GRU(C, C),
        nn.ConvTranspose2d(C, C, 1),
        nn.Linear(C, C),
        nn.Sequential(nn.LazyConv2d(C, 1), nn.BatchNorm2d(C)),
        nn.Sequential(nn.Conv2d(C, H, 1), nn.BatchNorm2d(C)),
        nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C), nn.BatchNorm2d(C)),
        nn.Sequential(nn.BatchNorm2d(C), nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_other_tensors_are_no_layers(module: nn.Module) -> None:
    assert layers_of(module, 4) == ()


def test_a_norm_belongs_to_the_only_layer_that_it_fits_or_the_last_before_it() -> None:
    first, second = nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1)
    norm, late, early = nn.BatchNorm2d(C), nn.BatchNorm2d(C), nn.BatchNorm2d(H)
    found = layers_of(nn.Sequential(early, nn.Conv2d(C, H, 1), first, norm, second, late), 3)
    assert [layer.norm for layer in found] == [early, norm, late]


def test_there_are_no_more_layers_than_asked_for() -> None:
    layers = nn.Sequential(*(nn.Linear(C, C) for _ in range(3)))
    assert len(layers_of(layers, 3)) == 3
    assert layers_of(layers, 2) == ()
    assert layers_of(Kernels(), 1) == ()


def test_the_graph_for_old_targets_holds_in_onnxruntime() -> None:
    check_in_onnxruntime(network_with(Block(), C))
