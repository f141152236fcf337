"""Shuffle attention under names of others: found, replaced and exact; look-alikes are left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.modules.shuffle import ShuffleCpu, ShuffleGpu
from tests.deploy_attn.rewriting.stem import (
    check_in_onnxruntime,
    check_left_alone,
    check_replaced,
    network_with,
    rewritten,
)

C = 24


class Dealt(nn.Module):
    """Groups gated by halves and dealt out; the parameters have the published names, or others in their order."""

    def __init__(self, groups: int, names: str = "cweight cbias sweight sbias", eps: float = 1e-5) -> None:
        super().__init__()
        part = C // (2 * groups)
        self.groups, self.names = groups, tuple(names.split())
        for name in self.names:
            self.register_parameter(name, nn.Parameter(torch.zeros(1, part, 1, 1)))
        self.gn = nn.GroupNorm(part, part, eps=eps)

    def normed(self, x: Tensor) -> Tensor:
        out: Tensor = self.gn(x)
        return out

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def ordered(self, x: Tensor) -> Tensor:
        halves = x.reshape(x.shape[0], 2, -1, *x.shape[2:])
        return halves.transpose(1, 2).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = (self.get_parameter(name) for name in self.names)
        level, place = x.reshape(-1, x.shape[1] // self.groups, *x.shape[2:]).chunk(2, 1)
        level = level * self.gate(a * level.mean((2, 3), keepdim=True) + b)
        place = place * self.gate(c * self.normed(place) + d)
        return self.ordered(torch.cat([level, place], 1).reshape_as(x))


@pytest.mark.parametrize(
    ("module", "evidence"),
    [
        (Dealt(4), "cweight 1x3x1x1"),
        (Dealt(3, eps=1e-2), "cweight 1x4x1x1"),
        (Dealt(2, "w0 b0 w1 b1"), "w0 1x6x1x1"),
    ],
    ids=["published", "odd", "renamed"],
)
@pytest.mark.parametrize(("engine", "form"), [("cpu", ShuffleCpu), ("gpu", ShuffleGpu)])
def test_every_number_of_groups_is_read_off_the_shapes(
    module: nn.Module, evidence: str, engine: str, form: type[nn.Module]
) -> None:
    result = check_replaced(network_with(module, C), "shuffle", engine=engine)
    assert evidence in result.findings[0].evidence[0]
    assert type(result.model.get_submodule("attention")) is form


def test_an_open_size_is_served() -> None:
    check_replaced(network_with(Dealt(4), C), "shuffle", dynamic_size=True)


class OtherEps(Dealt):
    def normed(self, x: Tensor) -> Tensor:
        return functional.group_norm(x, self.gn.num_groups, self.gn.weight, self.gn.bias, 2 * self.gn.eps)


class OneNorm(Dealt):
    """All channels of a half in one group of the norm."""

    def normed(self, x: Tensor) -> Tensor:
        return functional.group_norm(x, 1, self.gn.weight, self.gn.bias, self.gn.eps)


class HardGate(Dealt):
    def gate(self, x: Tensor) -> Tensor:
        return functional.hardsigmoid(x)


class InOrder(Dealt):
    def ordered(self, x: Tensor) -> Tensor:
        return x


class DealtTwice(Dealt):
    def ordered(self, x: Tensor) -> Tensor:
        once = super().ordered(x)
        return super().ordered(once)


@pytest.mark.parametrize("kind", [OtherEps, OneNorm, HardGate, InOrder, DealtTwice])
def test_the_same_keys_with_other_mathematics_are_left_alone(kind: type[Dealt]) -> None:
    check_left_alone(network_with(kind(4), C))


class OnlyEven(Dealt):
    """Takes the first channels of a map alone, so that its channels are no whole number of groups."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :C])


def test_a_map_of_no_whole_number_of_groups_is_named() -> None:
    _, finding = rewritten(network_with(OnlyEven(4), C + 1))
    assert not finding.replaced
    assert "25 channels" in str(finding.reason)


def test_the_graph_for_old_targets_holds_in_onnxruntime() -> None:
    check_in_onnxruntime(network_with(Dealt(4), C))
