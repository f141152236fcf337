"""The official ParNet block; copies of the catalogue's source are tested with the pasted modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploy_attn.rewriting.families import parnet
from deploy_attn.rewriting.rewrite import rewrite
from tests.deploy_attn.rewriting.stem import (
    check_in_onnxruntime,
    check_left_alone,
    check_replaced,
    network_with,
    randomised,
)

C = 16


def normed(inputs: int, outputs: int, size: int, stride: int, groups: int) -> nn.Sequential:
    layers = nn.Sequential()
    layers.add_module("conv", nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False))
    layers.add_module("bn", nn.BatchNorm2d(outputs))
    return layers


class Squeezed(nn.Module):
    def __init__(self, inputs: int, outputs: int, groups: int, factor: int) -> None:
        super().__init__()
        self.cvsig = nn.Module()
        self.cvsig.conv = nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)
        self.cvsig.act = nn.Sigmoid()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        parts: Any = self.cvsig
        gate: Tensor = self.factor * parts.act(parts.conv(x.mean((2, 3), keepdim=True)))
        return gate


class Block(nn.Module):
    """Three branches, or two where channels or size change; with groups a shuffle at the end."""

    def __init__(self, outputs: int = C, stride: int = 1, groups: int = 1, averages: bool = False) -> None:
        super().__init__()
        keeps = outputs == C and stride == 1
        self.groups = groups
        self.nonlinearity = nn.SiLU() if keeps else nn.ReLU(inplace=True)
        self.rbr_identity = nn.BatchNorm2d(C, eps=1e-3) if keeps else None
        self.rbr_dense = normed(C, outputs, 3, stride, groups)
        self.rbr_1x1 = normed(C, outputs, 1, 1 if averages else stride, groups)
        if averages:
            self.rbr_1x1 = nn.Sequential(nn.AvgPool2d(2, 2), self.rbr_1x1)
        self.se = Squeezed(C, outputs, groups, 1 if keeps else 2)

    def forward(self, x: Tensor) -> Tensor:
        summed = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.rbr_identity is None:
            summed = summed * self.se(x)
        else:
            third = self.rbr_identity(x)
            summed = summed + third * self.se(third)
        return self.shuffled(self.nonlinearity(summed))

    def shuffled(self, y: Tensor) -> Tensor:
        b, c, h, w = y.shape
        return y.reshape(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class NotShuffled(Block):
    def shuffled(self, y: Tensor) -> Tensor:
        return y


class GatesTheInput(Block):
    """The third branch gated by what the map itself says, not its norm."""

    def forward(self, x: Tensor) -> Tensor:
        third = self.rbr_identity(x) if self.rbr_identity is not None else 0
        y: Tensor = self.nonlinearity(self.rbr_dense(x) + self.rbr_1x1(x) + third * self.se(x))
        return y


class HalfGated(Block):
    """Without the factor of two that a block of two branches has."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.nonlinearity((self.rbr_dense(x) + self.rbr_1x1(x)) * self.se(x) / 2)
        return y


class Merged(Block):
    """Both convolutions are one."""

    def __init__(self) -> None:
        super().__init__()
        parts: dict[str, Any] = {"rbr_dense": nn.Conv2d(C, C, 3, padding=1), "rbr_1x1": nn.Identity()}
        self._modules.update(parts)

    def forward(self, x: Tensor) -> Tensor:
        third = self.rbr_identity(x) if self.rbr_identity is not None else x
        y: Tensor = self.nonlinearity(self.rbr_dense(x) + third * self.se(third))
        return y


BLOCKS: dict[str, dict[str, Any]] = {
    "three branches": {},
    "groups": {"groups": 2},
    "two branches": {"outputs": 24},
    "stride": {"stride": 2},
    "groups and stride": {"outputs": 32, "stride": 2, "groups": 4},
}


@pytest.mark.parametrize("options", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("dynamic_size", [False, True])
def test_official_blocks_are_replaced(options: dict[str, Any], dynamic_size: bool) -> None:
    check_replaced(network_with(Block(**options), C), "parnet", dynamic_size=dynamic_size)


@pytest.mark.parametrize("options", [{"groups": 2}, {"outputs": 24, "stride": 2}])
def test_a_rewritten_block_runs_in_onnxruntime(options: dict[str, Any]) -> None:
    check_in_onnxruntime(network_with(Block(**options), C))


@pytest.mark.parametrize("groups", [1, 2])
def test_averages_before_the_middle_become_four_taps(groups: int) -> None:
    network = randomised(nn.Sequential(Block(24, 2, groups, averages=True)))
    if groups > 1:
        network = randomised(nn.Sequential(Block(32, 2, groups, averages=True)))
    result = rewrite(network, torch.randn(1, C, 8, 10))
    assert result.findings[0].replaced, result.findings[0].reason
    assert result.whole.error <= 1e-11


def test_a_block_whose_convolutions_were_merged_before_is_replaced() -> None:
    check_replaced(network_with(Merged(), C), "parnet")


def test_groups_without_a_shuffle_are_the_second_reading() -> None:
    result = check_replaced(network_with(NotShuffled(groups=2), C), "parnet")
    assert "shuffles its groups" not in result.findings[0].evidence


def pooled_by_one() -> Block:
    block = Block()
    block.rbr_1x1 = nn.Sequential(nn.AvgPool2d(1), block.rbr_1x1)  # no average, but where one would be
    return block


@pytest.mark.parametrize("block", [GatesTheInput(), HalfGated(24), pooled_by_one()])
def test_blocks_of_other_mathematics_are_left_alone(block: Block) -> None:
    check_left_alone(network_with(block, C))


def test_a_kernel_of_another_size_is_refused_with_a_reason() -> None:
    block = Block()
    block.rbr_dense = normed(C, C, 5, 1, 1)
    result = rewrite(network_with(block, C), torch.randn(1, 3, 7, 9))
    assert not result.findings[0].replaced
    assert "a 3x3 and a 1x1 convolution" in str(result.findings[0].reason)


def test_other_modules_with_these_names_are_not_recognised() -> None:
    block = Block()
    block.extra = nn.Conv2d(1, 1, 1)
    assert list(parnet.recognise(block)) == []
