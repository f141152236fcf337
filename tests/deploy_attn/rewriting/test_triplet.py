"""Triplet attention under names of others: found, replaced and exact; look-alikes are left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from deploy_attn.modules.triplet import TripletGates
from deploy_attn.rewriting.families.triplet import recognise
from tests.deploy_attn.rewriting.stem import check_in_onnxruntime, check_left_alone, check_replaced, network_with

C = 10
KEYS = ("cw", "hc", "hw")
OLD_KEYS = ("ChannelGateH", "ChannelGateW", "SpatialGate")


class Plane(nn.Module):
    """A gate over the last two axes; keys `<key>.conv`, `<key>.bn`."""

    def __init__(self, key: str, size: int, padding_mode: Literal["zeros", "circular"]) -> None:
        super().__init__()
        self.key = key
        conv = nn.Conv2d(2, 1, size, padding=size // 2, bias=False, padding_mode=padding_mode)
        self.add_module(key, nn.Sequential())
        self.get_submodule(key).add_module("conv", conv)
        self.get_submodule(key).add_module("bn", nn.BatchNorm2d(1, eps=1e-4))

    def planes(self, x: Tensor) -> Sequence[Tensor]:
        return torch.max(x, 1)[0], torch.mean(x, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.get_submodule(self.key)(torch.stack(list(self.planes(x)), 1))
        gated: Tensor = x * scores.sigmoid_()
        return gated


class MeanFirst(Plane):
    def planes(self, x: Tensor) -> Sequence[Tensor]:
        return torch.mean(x, 1), torch.amax(x, 1)


class Turns(nn.Module):
    """The mean of a gate over channels and columns, one over rows and channels, and, if named, one over the map."""

    turns = ((0, 2, 1, 3), (0, 3, 2, 1), (0, 1, 2, 3))

    def __init__(
        self,
        names: Sequence[str],
        plane: type[Plane] = Plane,
        key: str = "conv",
        size: int = 7,
        mode: Literal["zeros", "circular"] = "zeros",
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        for name in names:
            self.add_module(name, plane(key, size, mode))

    def gated(self, x: Tensor) -> list[Tensor]:
        gates = zip(self.names, self.turns)
        return [self.get_submodule(name)(x.permute(turn).contiguous()).permute(turn) for name, turn in gates]

    def forward(self, x: Tensor) -> Tensor:
        parts = self.gated(x)
        return sum(parts[1:], parts[0]) / len(parts)


class MapFirst(Turns):
    """The gate over the map is registered first, and the other two the other way round."""

    turns = ((0, 1, 2, 3), (0, 3, 2, 1), (0, 2, 1, 3))


@pytest.mark.parametrize(
    ("module", "evidence"),
    [
        (Turns(KEYS), "branches cw cw.conv.conv, hc hc.conv.conv, hw hw.conv.conv"),
        (Turns(KEYS[:2]), "branches cw cw.conv.conv, hc hc.conv.conv"),
        (
            Turns(OLD_KEYS, key="spatial"),
            "branches cw ChannelGateH.spatial.conv, hc ChannelGateW.spatial.conv, hw SpatialGate.spatial.conv",
        ),
        (Turns(OLD_KEYS[:2], key="spatial"), "planes [max, mean]"),
        (Turns(KEYS, MeanFirst, size=3), "planes [mean, max]"),
        (MapFirst("xyz"), "branches cw z.conv.conv, hc y.conv.conv, hw x.conv.conv"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_every_set_of_keys_is_found_and_replaced(module: nn.Module, evidence: str, engine: str) -> None:
    result = check_replaced(network_with(module, C), "triplet", engine=engine)
    assert evidence in result.findings[0].evidence
    assert isinstance(result.model.get_submodule("attention"), TripletGates)


def test_an_open_size_is_served() -> None:
    check_replaced(network_with(Turns(KEYS), C), "triplet", dynamic_size=True)


class Product(Turns):
    def forward(self, x: Tensor) -> Tensor:
        first, second, *others = self.gated(x)
        return first * second + sum(others)


class Summed(Turns):
    def forward(self, x: Tensor) -> Tensor:
        parts = self.gated(x)
        return sum(parts[1:], parts[0])


class SameTurn(Turns):
    """Two gates over the same axes."""

    turns = ((0, 2, 1, 3), (0, 2, 1, 3), (0, 1, 2, 3))


@pytest.mark.parametrize(
    "module",
    [Product(KEYS), Summed(KEYS), SameTurn(KEYS), Turns(KEYS, mode="circular")],
    ids=["Product", "Summed", "SameTurn", "circular"],
)
def test_the_same_keys_with_other_mathematics_are_left_alone(module: nn.Module) -> None:
    check_left_alone(network_with(module, C))


def test_the_graph_for_old_targets_holds_in_onnxruntime() -> None:
    check_in_onnxruntime(network_with(Turns(OLD_KEYS, key="spatial"), C))


class Others(nn.Module):
    """The words of triplet attention, and other layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.layers[0](torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1))
        gated: Tensor = x * gate.permute(0, 1, 2, 3)
        return gated


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(2, 1, 3)],
        [nn.Conv2d(2, 1, 3), nn.Conv2d(2, 2, 3)],
        [nn.Linear(2, 1), nn.Linear(2, 1)],
        [nn.Conv2d(2, 1, 3), nn.Conv1d(2, 1, 3)],
    ],
    ids=["one", "two planes", "matrices", "a row"],
)
def test_other_layers_are_not_listed(layers: list[nn.Module]) -> None:
    assert not list(recognise(Others(*layers)))
