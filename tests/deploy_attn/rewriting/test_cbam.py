"""CBAM and its gates under names of others: found, replaced and exact; look-alikes are left alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.rewriting import sources
from deploy_attn.rewriting.families.cbam import recognise
from deploy_attn.rewriting.rewrite import rewrite
from tests.deploy_attn.rewriting.stem import (
    check_in_onnxruntime,
    check_left_alone,
    check_replaced,
    network_with,
    photo,
    randomised,
    rewritten,
)
from tests.torchvision_here import torchvision_here

C, H = 16, 4


class Levels(nn.Module):
    """A gate of the channels; keys `f1`, `f2`."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.top = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.f1 = nn.Conv2d(C, H, 1, bias=False)
        self.f2 = nn.Conv2d(H, C, 1, bias=False)
        self.act, self.squash = nn.ReLU(inplace=True), nn.Sigmoid()

    def score(self, pooled: Tensor) -> Tensor:
        scored: Tensor = self.f2(self.act(self.f1(pooled)))
        return scored

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.squash(self.score(self.mean(x)) + self.score(self.top(x)))
        return gate


class Spots(nn.Module):
    """A gate of the places; key `cv1`."""

    def __init__(self, size: int = 7, **options: Any) -> None:
        super().__init__()
        self.cv1 = nn.Conv2d(2, 1, size, **{"padding": size // 2, "bias": False, **options})
        self.squash = nn.Sigmoid()

    def planes(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.squash(self.cv1(self.planes(x)))
        return gate


class MaxFirst(Spots):
    def planes(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)


class AppliedSpots(Spots):
    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = x * self.squash(self.cv1(self.planes(x)))
        return gated


class NormedSpots(nn.Module):
    """A convolution with a norm, and a ReLU where there is one, before the gate."""

    def __init__(self, *after: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(2, 1, 5, padding="same"), nn.BatchNorm2d(1, eps=1e-3), *after)

    def forward(self, x: Tensor) -> Tensor:
        planes = torch.stack([torch.max(x, 1)[0], torch.mean(x, 1)], 1)
        return x * torch.sigmoid(self.conv(planes))


class Levelled(nn.Module):
    """A gate of the channels through Linear layers with biases, applied; keys `mlp.1`, `mlp.3`."""

    def __init__(self, pool_types: Sequence[str] = ("avg", "max"), gate: Callable[[Tensor], Tensor] = torch.sigmoid):
        super().__init__()
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(C, H), nn.ReLU(), nn.Linear(H, C))
        self.pool_types = list(pool_types)
        self.gate = gate

    def pooled(self, x: Tensor, kind: str) -> Tensor:
        window = (x.shape[2], x.shape[3])
        if kind == "avg":
            return functional.avg_pool2d(x, window)
        if kind == "max":
            return functional.max_pool2d(x, window)
        return functional.lp_pool2d(x, 2, window) if kind == "lp" else x.flatten(2).logsumexp(2)

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.stack([self.mlp(self.pooled(x, kind)) for kind in self.pool_types])
        gated: Tensor = x * self.gate(scores.sum(0))[:, :, None, None]
        return gated


class Whole(nn.Module):
    """Both gates in a block."""

    def __init__(self, levels: nn.Module, spots: nn.Module) -> None:
        super().__init__()
        self.ca, self.sa = levels, spots

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.ca(x)
        gated: Tensor = x * self.sa(x)
        return gated


class InTurns(Whole):
    """Both gates are applied by themselves."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sa(self.ca(x))
        return out


class Kept(Whole):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class SpotsFirst(Whole):
    def forward(self, x: Tensor) -> Tensor:
        x = x * self.sa(x)
        gated: Tensor = x * self.ca(x)
        return gated


class Flat(nn.Module):
    """All layers in one class, with functions in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Conv2d(2, 1, 3, padding=1)
        self.down, self.up = nn.Linear(C, H), nn.Linear(H, C)

    def forward(self, x: Tensor) -> Tensor:
        scores = [self.up(functional.silu(self.down(pooled))) for pooled in (x.mean((2, 3)), x.amax((2, 3)))]
        x = x * functional.hardsigmoid(sum(scores))[:, :, None, None]
        planes = torch.cat((torch.max(x, 1, keepdim=True)[0], torch.mean(x, 1, keepdim=True)), 1)
        gated: Tensor = x * functional.hardsigmoid(self.place(planes))
        return gated


class OneLayer(nn.Module):
    """No maximum and no reduction in the gate of the channels; keys `pool_fc`, `cv1`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.average, self.pool_fc, self.act = nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, C, 1), nn.Sigmoid()
        self.spots = Spots(size)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.act(self.pool_fc(self.average(x)))
        gated: Tensor = x * self.spots(x)
        return gated


class Users(nn.Module):
    """A block of a user's own, in which both gates stand apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.attention, self.places = nn.Conv2d(C, C, 3, padding=1), Levels(), Spots(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = self.attention(y) * y
        out: Tensor = self.places(y) * y
        return out


POOLS = ("lse", "avg", "lp", "max")


@pytest.mark.parametrize(
    ("module", "name", "evidence"),
    [
        (Levels(), "cbam_channel_gate", "keys f1.weight 4x16x1x1, f2.weight 16x4x1x1"),
        (Levelled(), "cbam_channel_gate", "returns the gated map"),
        (Spots(3), "cbam_spatial_gate", "returns the gate"),
        (MaxFirst(5, bias=True), "cbam_spatial_gate", "gate of places by [max, mean] with Sigmoid (child squash)"),
        (AppliedSpots(), "cbam_spatial_gate", "gate of places by [mean, max] with Sigmoid (child squash)"),
        (NormedSpots(), "cbam_spatial_gate", "gate of places by [max, mean] with Sigmoid (sigmoid in forward)"),
        (
            NormedSpots(nn.ReLU()),
            "cbam_spatial_gate",
            "gate of places by [max, mean] with ReLU (child conv.2), Sigmoid (sigmoid in forward)",
        ),
        (Whole(Levels(), Spots()), "cbam", "channels first"),
        (Whole(Levels(), MaxFirst(49)), "cbam", "gate of places by [max, mean] with Sigmoid (child squash)"),
        (InTurns(Levelled(), NormedSpots()), "cbam", "channels first"),
        (
            InTurns(Levelled(POOLS), AppliedSpots()),
            "cbam",
            "gate of channels by log-sum-exp, mean, norm, max with ReLU (child mlp.2), Sigmoid (attribute gate)",
        ),
        (Kept(Levels(), MaxFirst(bias=True)), "cbam_residual", "channels first, the input added"),
        (SpotsFirst(Levels(), Spots()), "cbam", "places first"),
        (
            Flat(),
            "cbam",
            "gate of channels by mean, max with SiLU (silu in forward), Hardsigmoid (hardsigmoid in forward)",
        ),
        (OneLayer(7), "cbam", "gate of channels by mean with Sigmoid (child act)"),
        (OneLayer(3), "cbam", "channels first"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_variant_is_found_under_a_foreign_name_and_replaced(module: nn.Module, name: str, evidence: str) -> None:
    result = check_replaced(network_with(module, C), name)
    assert evidence in result.findings[0].evidence


@pytest.mark.parametrize("dynamic_size", [False, True])
def test_a_gpu_and_an_open_size_are_served(dynamic_size: bool) -> None:
    kept = network_with(Kept(Levels(), MaxFirst(9)), C)
    check_replaced(kept, "cbam_residual", engine="gpu", dynamic_size=dynamic_size)


def test_gates_that_stand_apart_in_a_block_are_both_replaced() -> None:
    result = rewrite(randomised(nn.Sequential(nn.Conv2d(3, C, 1), Users())), photo())
    found = {finding.recognised_as: finding.replaced for finding in result.findings}
    assert found == {"cbam_channel_gate": True, "cbam_spatial_gate": True}
    assert result.whole.error <= 1e-11


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mlp_bias": True, "spatial_kernel_size": 3, "act_layer": nn.SiLU},
        {"gate_layer": "hard_sigmoid", "act_layer": nn.LeakyReLU},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["CbamModule", "LightCbamModule"])
def test_timms_blocks_are_replaced_with_all_their_options(name: str, options: dict[str, Any]) -> None:
    torchvision_here()
    from timm.layers import cbam

    result = check_replaced(network_with(getattr(cbam, name)(C, rd_channels=H, **options), C), "cbam")
    assert result.findings[0].evidence[0] == f"type timm.layers.cbam.{name}"


def test_a_published_forward_is_tried_first_as_what_it_was_published_for(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Kept(Levels(), Spots())
    assert next(recognise(block)).name == "cbam"
    monkeypatch.setattr(sources, "forward_fingerprint", lambda module: "82709a74893b06f3")
    first = next(recognise(block))
    assert first.name == "cbam_residual"
    assert "forward's source is that of fightingcv_attention, CBAMBlock" in first.evidence


class GateOfEach(Levels):
    """sigmoid(a) sigmoid(b), not sigmoid(a + b)."""

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.squash(self.score(self.mean(x))) * self.squash(self.score(self.top(x)))
        return gate


class OfTheSum(Levels):
    """W2 relu(W1 (mean + max)), not the sum of both."""

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.squash(self.score(self.mean(x) + self.top(x)))
        return gate


class SquaredScore(Levels):
    def score(self, pooled: Tensor) -> Tensor:
        return super().score(pooled) ** 2


class Leaky(Levels):
    def score(self, pooled: Tensor) -> Tensor:
        scored: Tensor = self.f2(torch.maximum(self.f1(pooled), 1e-3 * self.f1(pooled)))
        return scored


class Twice(Spots):
    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = 2 * self.squash(self.cv1(self.planes(x)))
        return gate


class Softened(Spots):
    """A softmax over the map, not a gate of each place."""

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.cv1(self.planes(x))
        return scores.flatten(2).softmax(2).view_as(scores)


class Smallest(Spots):
    def planes(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(1, keepdim=True), -(-x).max(1, keepdim=True)[0]], 1)


class OtherEps(NormedSpots):
    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.conv
        assert isinstance(norm, nn.BatchNorm2d)
        planes = conv(torch.stack([torch.max(x, 1)[0], torch.mean(x, 1)], 1))
        normed = functional.batch_norm(planes, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=5e-4)
        return x * torch.sigmoid(normed)


class Parallel(Whole):
    """Both gates see the input."""

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = x * self.ca(x) * self.sa(x)
        return gated


class Halved(Kept):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


@pytest.mark.parametrize(
    "module",
    [
        GateOfEach(),
        OfTheSum(),
        SquaredScore(),
        Leaky(),
        Twice(),
        Softened(),
        Smallest(),
        OtherEps(),
        Spots(padding_mode="circular"),
        Parallel(Levels(), Spots()),
        Halved(Levels(), Spots()),
        Whole(Levels(), Twice()),
        Whole(GateOfEach(), Spots()),
    ],
    ids=lambda module: type(module).__name__,
)
def test_the_same_keys_with_other_mathematics_are_left_alone(module: nn.Module) -> None:
    check_left_alone(network_with(module, C))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Spots(padding_mode="reflect"), "cv1 has padding_mode reflect"),
        (Spots(3, dilation=2, padding=2), "cv1 has dilation (2, 2)"),
        (Spots(3, padding=1, stride=2), "cv1 has stride (2, 2)"),
        (Spots(4), "cv1 has kernel_size (4, 4)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_convolution_that_no_form_lays_out_is_named(module: nn.Module, said: str) -> None:
    _, finding = rewritten(network_with(module, C))
    assert not finding.replaced
    assert said in str(finding.reason)


def test_a_norm_without_statistics_is_left_alone() -> None:
    module = NormedSpots()
    module.conv[1] = nn.BatchNorm2d(1, track_running_stats=False)
    _, finding = rewritten(network_with(module, C))
    assert not finding.replaced
    assert "running statistics" in str(finding.reason)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(2, 1, 7, padding=3),
        nn.Sequential(nn.Linear(C, H), nn.MaxPool1d(1), nn.AvgPool1d(1), nn.Linear(H, C), nn.Sigmoid()),
        nn.Sequential(),
        nn.MultiheadAttention(C, 2),
        nn.LazyLinear(4),
    ],
    ids=lambda module: type(module).__name__,
)
def test_layers_of_torch_are_no_attention(module: nn.Module) -> None:
    assert not list(recognise(module))


def test_the_graph_for_old_targets_holds_in_onnxruntime() -> None:
    check_in_onnxruntime(network_with(InTurns(Levelled(POOLS), NormedSpots(nn.ReLU())), C))
