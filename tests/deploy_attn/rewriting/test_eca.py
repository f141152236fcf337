"""ECA and its kin under names of others: found, replaced and exact; look-alikes are left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.modules.eca import ECAExport
from deploy_attn.rewriting.rewrite import rewrite
from tests.deploy_attn.rewriting.stem import (
    check_in_onnxruntime,
    check_left_alone,
    check_replaced,
    network_with,
    photo,
    randomised,
)
from tests.torchvision_here import torchvision_here

C = 24


class Neighbours(nn.Module):
    """The common version, whose steps a subclass may change."""

    def __init__(self, conv: nn.Conv1d, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.mixing = conv
        self.squash = gate or nn.Sigmoid()

    def mixed(self, row: Tensor) -> Any:
        return self.squash(self.mixing(row))

    def forward(self, x: Tensor) -> Any:
        gate = self.mixed(self.avg_pool(x).squeeze(-1).transpose(-1, -2))
        return x * gate.transpose(-1, -2).unsqueeze(-1).expand_as(x)


class PadsAround(Neighbours):
    def mixed(self, row: Tensor) -> Any:
        return self.squash(self.mixing(functional.pad(row, (2, 2), mode="circular")))


class PadsZeros(Neighbours):
    def mixed(self, row: Tensor) -> Any:
        return self.squash(self.mixing(functional.pad(row, (2, 2))))


class GateOnly(Neighbours):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.mixing(x.mean((2, 3))[:, None]))[:, 0, :, None, None]


class TwoConvolutions(nn.Module):
    """From one channel to four and back."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.act, self.narrow = nn.Conv1d(1, 4, 1), nn.SiLU(), nn.Conv1d(4, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        row = x.mean((2, 3)).view(x.shape[0], 1, -1)
        return x * torch.sigmoid(self.narrow(self.act(self.widen(row)))).view(x.shape[0], -1, 1, 1)


@pytest.mark.parametrize(
    ("module", "evidence"),
    [
        (Neighbours(nn.Conv1d(1, 1, 3, padding=1, bias=False)), "keys mixing.weight 1x1x3"),
        (Neighbours(nn.Conv1d(1, 1, 7, padding=3)), "zeros beyond the ends"),
        (Neighbours(nn.Conv1d(1, 1, 1, bias=False)), "keys mixing.weight 1x1x1"),
        (Neighbours(nn.Conv1d(1, 1, 5, padding="same"), nn.Hardsigmoid()), "Hardsigmoid (child squash)"),
        (Neighbours(nn.Conv1d(1, 1, 5, padding=2, padding_mode="circular")), "circular beyond the ends"),
        (PadsAround(nn.Conv1d(1, 1, 5)), "circular beyond the ends"),
        (PadsZeros(nn.Conv1d(1, 1, 5)), "zeros beyond the ends"),
        (GateOnly(nn.Conv1d(1, 1, 3, padding=1)), "returns the gate, b c 1 1"),
        (TwoConvolutions(), "SiLU (child act)"),
    ],
)
def test_every_variant_is_found_under_a_foreign_name_and_replaced(module: nn.Module, evidence: str) -> None:
    result = check_replaced(network_with(module, C), "eca")
    assert evidence in result.findings[0].evidence
    assert isinstance(result.model.get_submodule("attention"), ECAExport)


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
@pytest.mark.parametrize("dynamic_size", [False, True])
def test_every_engine_and_an_open_size_are_served(engine: str, dynamic_size: bool) -> None:
    module = PadsAround(nn.Conv1d(1, 1, 5))
    check_replaced(network_with(module, C), "eca", engine=engine, dynamic_size=dynamic_size)


def test_timms_modules_are_known_by_their_types() -> None:
    torchvision_here()
    from timm.layers.eca import CecaModule, EcaModule

    variants = [
        EcaModule(C),
        EcaModule(kernel_size=5, gate_layer="hard_sigmoid"),
        EcaModule(C, use_mlp=True),
        EcaModule(C, use_mlp=True, act_layer=nn.GELU),
        CecaModule(C),
        CecaModule(256, act_layer=nn.ReLU()),
    ]
    for module in variants:
        channels = 256 if module is variants[-1] else C
        result = check_replaced(network_with(module, channels), "eca")
        assert result.findings[0].evidence[0].startswith("type timm.layers.eca.")


class Shuffled(Neighbours):
    def mixed(self, row: Tensor) -> Any:
        return super().mixed(row.flip(-1))


class Cubed(Neighbours):
    def mixed(self, row: Tensor) -> Any:
        return super().mixed(row) ** 3


class Shifted(Neighbours):
    def mixed(self, row: Tensor) -> Any:
        return self.squash(self.mixing(row.roll(1, -1)))


class MaxPooled(Neighbours):
    def forward(self, x: Tensor) -> Any:
        gate = self.mixed(functional.adaptive_max_pool2d(x, 1).squeeze(-1).transpose(-1, -2))
        return x * gate.transpose(-1, -2).unsqueeze(-1)


class Zeroed(Neighbours):
    """A convolution that says it goes around, used as one that pads with zeros."""

    def mixed(self, row: Tensor) -> Any:
        return self.squash(functional.conv1d(row, self.mixing.weight, self.mixing.bias, padding=1))


class Reflected(Neighbours):
    def mixed(self, row: Tensor) -> Any:
        return self.squash(self.mixing(functional.pad(row, (2, 2), mode="reflect")))


class OtherWay(TwoConvolutions):
    """The gate between the convolutions, the function after them."""

    def forward(self, x: Tensor) -> Any:
        row = x.mean((2, 3)).view(x.shape[0], 1, -1)
        return x * self.act(self.narrow(torch.sigmoid(self.widen(row)))).view(x.shape[0], -1, 1, 1)


@pytest.mark.parametrize(
    "module",
    [
        Shuffled(nn.Conv1d(1, 1, 3, padding=1)),
        Cubed(nn.Conv1d(1, 1, 3, padding=1)),
        Shifted(nn.Conv1d(1, 1, 3, padding=1)),
        MaxPooled(nn.Conv1d(1, 1, 3, padding=1)),
        Zeroed(nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")),
        Reflected(nn.Conv1d(1, 1, 5)),
        Neighbours(nn.Conv1d(1, 1, 5, padding=2, padding_mode="replicate")),
        OtherWay(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_the_same_keys_with_other_mathematics_are_left_alone(module: nn.Module) -> None:
    check_left_alone(network_with(module, C))


class Grid(nn.Module):
    """Local and global channel attention on a grid of pools."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.conv_local = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        grid = functional.adaptive_avg_pool2d(x, 5)
        local = self.conv_local(grid.flatten(2).transpose(1, 2).reshape(x.shape[0], 1, -1))
        local = torch.sigmoid(local).reshape(x.shape[0], 25, -1).transpose(1, 2).reshape(grid.shape)
        overall = torch.sigmoid(self.conv(grid.mean((2, 3))[:, None])).transpose(1, 2)[..., None]
        return x * functional.adaptive_avg_pool2d((local + overall) / 2, (x.shape[2], x.shape[3]))


def test_the_attention_of_a_grid_is_named_and_refused() -> None:
    (finding,) = rewrite(network_with(Grid(), C), photo()).findings
    assert (finding.recognised_as, finding.replaced) == ("mlca", False)
    assert "no export form" in str(finding.reason)


def test_only_the_module_itself_is_found_and_not_what_holds_it() -> None:
    holder = nn.Sequential(nn.Sequential(Neighbours(nn.Conv1d(1, 1, 3, padding=1)), nn.AdaptiveAvgPool2d(1)))
    result = rewrite(randomised(holder), torch.randn(1, C, 5, 6))
    assert [(finding.paths, finding.replaced) for finding in result.findings] == [(("0.0",), True)]


@pytest.mark.parametrize("module", [PadsAround(nn.Conv1d(1, 1, 5)), TwoConvolutions()])
def test_the_graph_of_a_variant_is_right_at_opset_13(module: nn.Module) -> None:
    check_in_onnxruntime(network_with(module, C))
