"""Selective kernels of several sources, and split attention, whose branches come from one convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploy_attn.rewriting.families import sk, split_attn
from tests.deploy_attn.rewriting.foreign import foreign
from tests.deploy_attn.rewriting.stem import (
    check_in_onnxruntime,
    check_left_alone,
    check_replaced,
    network_with,
    rewritten,
)
from tests.torchvision_here import torchvision_here

torchvision_here()

from timm.layers.selective_kernel import SelectiveKernel  # noqa: E402  # torchvision is imported before timm
from timm.layers.split_attn import SplitAttn  # noqa: E402

C, HIDDEN = 32, 6


class Dilated(nn.Module):
    """Grouped 3x3 branches of growing dilation; the names of the common PyTorch version."""

    def __init__(self, branches: int, stride: int = 1) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(C, C, 3, stride, padding=1 + index, dilation=1 + index, groups=4, bias=False),
                nn.BatchNorm2d(C, eps=1e-3),
                nn.ReLU(inplace=True),
            )
            for index in range(branches)
        )
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.fc = self.squeezing()
        self.fcs = self.choosing(branches)
        self.softmax = nn.Softmax(1)

    def squeezing(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(C, HIDDEN, 1, bias=False), nn.BatchNorm2d(HIDDEN), nn.ReLU(inplace=True))

    def choosing(self, branches: int) -> nn.ModuleList:
        return nn.ModuleList(nn.Conv2d(HIDDEN, C, 1) for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([conv(x) for conv in self.convs], 1)
        hidden = self.fc(self.gap(maps.sum(1)))
        weights = self.softmax(torch.stack([layer(hidden) for layer in self.fcs], 1))
        mixed: Tensor = (maps * weights).sum(1)
        return mixed


class Linears(Dilated):
    def squeezing(self) -> nn.Module:
        return nn.Linear(C, HIDDEN)

    def choosing(self, branches: int) -> nn.ModuleList:
        return nn.ModuleList(nn.Linear(HIDDEN, C) for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([conv(x) for conv in self.convs], 1)
        hidden = self.fc(maps.sum(1).mean(-1).mean(-1))
        weights = self.softmax(torch.stack([layer(hidden) for layer in self.fcs], 1))
        mixed: Tensor = (maps * weights[..., None, None]).sum(1)
        return mixed


class OneLastLayer(nn.Module):
    """All logits from one layer; the names `conv`, `fc1`, `fc2`."""

    def __init__(self) -> None:
        super().__init__()
        source = Dilated(3)
        self.conv, self.fc1 = source.convs, source.fc
        self.fc2 = nn.Conv2d(HIDDEN, 3 * C, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = [conv(x) for conv in self.conv]
        hidden = self.fc1(sum(maps[1:], maps[0]).mean((2, 3), keepdim=True))
        weights = self.fc2(hidden).reshape(-1, 3, C, 1).softmax(1).chunk(3, 1)
        mixed: Tensor = sum(own * weight.reshape(-1, C, 1, 1) for own, weight in zip(maps, weights))
        return mixed


class Unlike(Dilated):
    """The names and shapes of `Dilated` with a sigmoid in place of the softmax."""

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([conv(x) for conv in self.convs], 1)
        hidden = self.fc(self.gap(maps.sum(1)))
        return (maps * torch.stack([layer(hidden) for layer in self.fcs], 1).sigmoid()).sum(1)


class Reversed(Dilated):
    """The weights of the first branch for the last."""

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([conv(x) for conv in self.convs], 1)
        hidden = self.fc(self.gap(maps.sum(1)))
        weights = self.softmax(torch.stack([layer(hidden) for layer in self.fcs], 1))
        mixed: Tensor = (maps * weights.flip(1)).sum(1)
        return mixed


def gelu() -> nn.Module:
    module: nn.Module = foreign("sk", channels=C, min_hidden=4)
    branch = module.get_submodule("convs.1")
    branch.relu = nn.GELU()
    return module


SELECTIVE: dict[str, Callable[[], nn.Module]] = {
    "two branches": lambda: Dilated(2),
    "three branches": lambda: Dilated(3),
    "stride": lambda: Dilated(2, stride=2),
    "linear": lambda: Linears(3),
    "one last layer": OneLastLayer,
    "another activation": gelu,
    "timm": lambda: SelectiveKernel(C),
    "timm, not split": lambda: SelectiveKernel(C, split_input=False, groups=4),
    "timm, other channels": lambda: SelectiveKernel(C, 48, stride=2),
    "timm, 5x5": lambda: SelectiveKernel(C, keep_3x3=False, act_layer=nn.SiLU),
}


@pytest.mark.parametrize("made", SELECTIVE.values(), ids=SELECTIVE)
@pytest.mark.parametrize("dynamic_size", [False, True])
def test_selective_kernels_are_replaced(made: Callable[[], nn.Module], dynamic_size: bool) -> None:
    check_replaced(network_with(made(), C), "sk", dynamic_size=dynamic_size)


def test_three_shares_of_the_input_are_replaced() -> None:
    check_replaced(network_with(SelectiveKernel(30, C, kernel_size=[3, 5, 7]), 30), "sk", engine="gpu")


def test_the_type_of_a_known_library_is_evidence() -> None:
    _, finding = rewritten(network_with(SelectiveKernel(C), C))
    assert finding.evidence[0] == "type timm.layers.selective_kernel.SelectiveKernel"
    assert finding.evidence[-1] == "branches 3x3 ReLU, 3x3 dilated 2 ReLU"


def wrapping() -> nn.Module:
    module = Dilated(2)
    conv: Any = module.get_submodule("convs.0.0")
    conv.padding_mode, conv._reversed_padding_repeated_twice = "circular", [1, 1, 1, 1]
    return module


@pytest.mark.parametrize("made", [lambda: Unlike(2), lambda: Unlike(3), lambda: Reversed(3), wrapping])
def test_selective_kernels_of_other_mathematics_are_left_alone(made: Callable[[], nn.Module]) -> None:
    check_left_alone(network_with(made(), C))


def test_what_has_other_layers_as_well_or_lacks_one_is_not_recognised() -> None:
    more, fewer = Dilated(2), Dilated(2)
    more.tail = nn.Conv2d(C, C, 1)
    fewer.fcs = nn.ModuleList([nn.Conv2d(HIDDEN, C, 1)])
    for module in (more, fewer, Dilated(1), nn.Sequential(nn.Conv2d(3, 3, 1))):
        assert list(sk.recognise(module)) == []


class WithBothReLUsInOne(nn.Module):
    """Split attention with one ReLU for both places, which is how the authors write it."""

    def __init__(self, radix: int, groups: int) -> None:
        super().__init__()
        source: Any = SplitAttn(C, radix=radix, groups=groups, norm_layer=nn.BatchNorm2d)
        self.conv, self.bn0, self.relu = source.conv, source.bn0, nn.ReLU(inplace=True)
        self.fc1, self.bn1, self.fc2 = source.fc1, source.bn1, source.fc2
        self.radix, self.groups = radix, groups

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack(self.relu(self.bn0(self.conv(x))).split(C, 1), 1)
        gate = self.fc2(self.relu(self.bn1(self.fc1(maps.sum(1).mean((2, 3), keepdim=True)))))
        weights = self.chosen(gate.reshape(-1, self.groups, self.radix, C // self.groups).transpose(1, 2))
        return (maps * weights.reshape(-1, self.radix, C, 1, 1)).sum(1)

    def chosen(self, logits: Tensor) -> Tensor:
        return logits.softmax(1) if self.radix > 1 else logits.sigmoid()


class OverGroups(WithBothReLUsInOne):
    """The softmax over the wrong axis."""

    def chosen(self, logits: Tensor) -> Tensor:
        return logits.softmax(2)


class Unordered(WithBothReLUsInOne):
    """The logits as they come, radix and groups exchanged."""

    def chosen(self, logits: Tensor) -> Tensor:
        return logits.transpose(1, 2).reshape(logits.shape).softmax(1)


@pytest.mark.parametrize("radix", [1, 2, 4])
@pytest.mark.parametrize("groups", [1, 2])
def test_split_attention_is_replaced(radix: int, groups: int) -> None:
    check_replaced(network_with(WithBothReLUsInOne(radix, groups), C), "split_attn")
    timm: Any = SplitAttn(C, 2 * C, radix=radix, groups=groups, stride=2, act_layer=nn.SiLU)
    check_replaced(network_with(timm, C), "split_attn", engine="gpu", dynamic_size=True)


@pytest.mark.parametrize("module", [OverGroups(2, 2), OverGroups(1, 1), Unordered(2, 2), Unordered(4, 2)])
def test_split_attention_of_other_mathematics_is_left_alone(module: nn.Module) -> None:
    check_left_alone(network_with(module, C))


def test_other_modules_with_the_names_of_split_attention_are_not_recognised() -> None:
    module: Any = WithBothReLUsInOne(2, 1)
    module.fc2 = nn.Conv2d(32, C, 1)
    assert list(split_attn.recognise(module)) == []


@pytest.mark.parametrize("module", [Dilated(2), Linears(3), SplitAttn(C, groups=2, norm_layer=nn.BatchNorm2d)])
def test_a_rewritten_mixture_runs_in_onnxruntime(module: nn.Module) -> None:
    check_in_onnxruntime(network_with(module, C))
