"""Bottleneck attention under names of others: found, replaced and exact; look-alikes are left alone."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.modules.bam_forms import BottleneckGate
from deploy_attn.rewriting.rewrite import rewrite
from tests.deploy_attn.rewriting.stem import (
    check_in_onnxruntime,
    check_left_alone,
    check_replaced,
    network_with,
)

C, H = 16, 4


class Both(nn.Module):
    """x + x gate of the sum of a branch of the channels and one of the places."""

    def __init__(self, dilation: int = 2, depth: int = 2, circular: bool = False) -> None:
        super().__init__()
        levels: list[nn.Module] = [nn.Flatten(), nn.Linear(C, H), nn.BatchNorm1d(H, eps=1e-3), nn.ReLU()]
        places: list[nn.Module] = [nn.Conv2d(C, H, 1), nn.BatchNorm2d(H), nn.ReLU()]
        for _ in range(depth):
            mode: Literal["circular", "zeros"] = "circular" if circular else "zeros"
            wide = nn.Conv2d(H, H, 3, padding="same", dilation=dilation, padding_mode=mode)
            places += [wide, nn.BatchNorm2d(H), nn.ReLU()]
        self.levels = nn.Sequential(*levels, nn.Linear(H, C))
        self.places = nn.Sequential(*places, nn.Conv2d(H, 1, 1))

    def pooled(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)

    def gate(self, levels: Tensor, places: Tensor) -> Tensor:
        return torch.sigmoid(levels + places)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.levels(self.pooled(x))[:, :, None, None].expand_as(x)
        return (1 + self.gate(levels, self.places(x).expand_as(x))) * x


class Multiplied(Both):
    def gate(self, levels: Tensor, places: Tensor) -> Tensor:
        return torch.sigmoid(levels * places)


class ForSquares(Multiplied):
    """Pools windows as wide as the map is high."""

    def pooled(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, x.size(2), stride=x.size(2))


@pytest.mark.parametrize("module", [Both(), Both(dilation=4, depth=1), Multiplied()], ids=["sum", "wide", "product"])
@pytest.mark.parametrize(("engine", "dynamic_size"), [("cpu", False), ("gpu", True)])
def test_every_variant_is_found_under_a_foreign_name_and_replaced(
    module: nn.Module, engine: str, dynamic_size: bool
) -> None:
    result = check_replaced(network_with(module, C), "bam", engine=engine, dynamic_size=dynamic_size)
    assert isinstance(result.model.get_submodule("attention"), BottleneckGate)


def test_a_module_for_square_maps_is_replaced_on_these_alone() -> None:
    network = network_with(ForSquares(), C)
    (finding,) = rewrite(network, torch.randn(1, 3, 8, 8)).findings
    assert finding.replaced, finding.reason
    assert "square maps only" in finding.evidence
    check_left_alone(network)  # its map is not square


class NotAdded(Both):
    def forward(self, x: Tensor) -> Tensor:
        levels = self.levels(self.pooled(x))[:, :, None, None]
        return self.gate(levels, self.places(x)) * x


class HardGate(Both):
    def gate(self, levels: Tensor, places: Tensor) -> Tensor:
        return torch.sigmoid(levels) + functional.hardsigmoid(places)


class Largest(Both):
    def pooled(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True) * 0 + x.amax((2, 3), keepdim=True)


@pytest.mark.parametrize(
    "module", [NotAdded(), HardGate(), Largest(), Both(circular=True)], ids=lambda each: type(each).__name__
)
def test_the_same_keys_with_other_mathematics_are_left_alone(module: nn.Module) -> None:
    check_left_alone(network_with(module, C))


def test_the_graph_for_old_targets_holds_in_onnxruntime() -> None:
    check_in_onnxruntime(network_with(Multiplied(), C))
