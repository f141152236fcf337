"""SimAM under names of others: found, replaced and exact; look-alikes are left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.rewriting.rewrite import rewrite
from tests.deploy_attn.rewriting.stem import check_in_onnxruntime, check_left_alone, check_replaced, network_with, photo

C = 24


class Energy(nn.Module):
    """Lambda under any name, and a sigmoid as a child."""

    def __init__(self, name: str = "e_lambda", value: float = 1e-4) -> None:
        super().__init__()
        self.activaton = nn.Sigmoid()
        self.name = name
        setattr(self, name, value)

    def squares(self, x: Tensor) -> Tensor:
        return (x - x.mean(dim=[2, 3], keepdim=True)).pow(2)

    def energy(self, squares: Tensor, spread: Tensor) -> Any:
        return squares / (4 * (spread + getattr(self, self.name))) + 0.5

    def forward(self, x: Tensor) -> Any:
        squares = self.squares(x)
        spread = squares.sum(dim=[2, 3], keepdim=True) / (x.shape[2] * x.shape[3] - 1)
        return x * self.activaton(self.energy(squares, spread))


class Written(nn.Module):
    """Everything in forward."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, (2, 3), keepdim=True)
        return x * functional.sigmoid((x - mean) ** 2 / (4 * (variance + 3e-4)) + 0.5)


@pytest.mark.parametrize(
    ("module", "evidence"),
    [
        (Energy(), "attribute e_lambda 0.0001"),
        (Energy("lamda", 1e-3), "attribute lamda 0.001"),
        (Energy("eps", 5e-5), "attribute eps 5e-05"),
        (Written(), "number in forward 0.0003"),
    ],
)
def test_every_variant_is_found_under_a_foreign_name_and_replaced(module: nn.Module, evidence: str) -> None:
    result = check_replaced(network_with(module, C), "simam")
    assert evidence in result.findings[0].evidence


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
@pytest.mark.parametrize("dynamic_size", [False, True])
def test_every_engine_and_an_open_size_are_served(engine: str, dynamic_size: bool) -> None:
    check_replaced(network_with(Energy(), C), "simam", engine=engine, dynamic_size=dynamic_size)


class OverAll(Energy):
    """Divides by h w, as the paper does."""

    def energy(self, squares: Tensor, spread: Tensor) -> Any:
        return super().energy(squares, squares.mean((2, 3), keepdim=True))


class Eight(Energy):
    def energy(self, squares: Tensor, spread: Tensor) -> Any:
        return squares / (8 * (spread + getattr(self, self.name))) + 0.5


class OtherLambda(Energy):
    def energy(self, squares: Tensor, spread: Tensor) -> Any:
        return squares / (4 * (spread + 2 * getattr(self, self.name))) + 0.5


class WithoutHalf(Energy):
    def energy(self, squares: Tensor, spread: Tensor) -> Any:
        return super().energy(squares, spread) - 0.5


class Absolute(Energy):
    def squares(self, x: Tensor) -> Tensor:
        return (x - x.mean((2, 3), keepdim=True)).abs()


class OverChannels(Energy):
    def squares(self, x: Tensor) -> Tensor:
        return (x - x.mean((1, 2, 3), keepdim=True)).pow(2)


@pytest.mark.parametrize(
    "module",
    [OverAll(), Eight(), OtherLambda(), WithoutHalf(), Absolute(), OverChannels()],
    ids=lambda module: type(module).__name__,
)
def test_the_same_constant_with_other_mathematics_is_left_alone(module: nn.Module) -> None:
    check_left_alone(network_with(module, C))


class Rms(nn.Module):
    """A norm with an eps, and no sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + self.eps)


class Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


@pytest.mark.parametrize("module", [Rms(), Swish(), nn.Sigmoid(), nn.InstanceNorm2d(C), nn.Sequential(nn.ReLU())])
def test_other_modules_without_weights_are_not_listed(module: nn.Module) -> None:
    assert rewrite(network_with(module, C), photo()).findings == ()


def test_the_graph_of_a_variant_is_right_at_opset_13() -> None:
    check_in_onnxruntime(network_with(Energy(), C))


def test_only_the_module_itself_is_found_and_not_what_holds_it() -> None:
    result = rewrite(nn.Sequential(nn.Sequential(Energy())), torch.randn(1, C, 5, 6))
    assert [(finding.paths, finding.replaced) for finding in result.findings] == [(("0.0",), True)]
