"""Self-attention by heads of several sources."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploy_attn.rewriting.families import mhsa
from deploy_attn.rewriting.rewrite import rewrite
from tests.deploy_attn.rewriting.foreign import foreign
from tests.deploy_attn.rewriting.stem import (
    SIZE,
    check_in_onnxruntime,
    check_left_alone,
    check_replaced,
    network_with,
    randomised,
    rewritten,
)
from tests.torchvision_here import torchvision_here

torchvision_here()

from timm.layers.bottleneck_attn import BottleneckAttn  # noqa: E402  # torchvision is imported before timm

C, HEADS = 24, 3


class Absolute(nn.Module):
    """BoTNet's attention as it is copied, its table under the short names."""

    def __init__(self, positions: bool, scale: float = 1.0, of_positions: bool = True, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Conv2d(C, C, 1) for _ in range(3))
        if positions:
            self.rel_h = nn.Parameter(torch.randn(1, heads, C // heads, 1, SIZE[1]))
            self.rel_w = nn.Parameter(torch.randn(1, heads, C // heads, SIZE[0], 1))
        self.factors = scale, scale if of_positions else 1.0

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (conv(x).unflatten(1, (self.heads, -1)).flatten(3) for conv in self.projections())
        logits = self.factors[0] * query.transpose(2, 3) @ key
        if hasattr(self, "rel_h"):
            logits = logits + self.factors[1] * (self.rel_h + self.rel_w).flatten(3).transpose(2, 3) @ query
        mixed: Tensor = value @ self.weights(logits).transpose(2, 3)
        return mixed.reshape(x.shape)

    def projections(self) -> tuple[nn.Module, ...]:
        return self.query, self.key, self.value

    def weights(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)


class OfThePaper(Absolute):
    """The position term is not transposed."""

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (conv(x).unflatten(1, (self.heads, -1)).flatten(3) for conv in self.projections())
        logits = query.transpose(2, 3) @ (key + (self.rel_h + self.rel_w).flatten(3))
        mixed: Tensor = value @ logits.softmax(-1).transpose(2, 3)
        return mixed.reshape(x.shape)


class OverQueries(Absolute):
    def weights(self, logits: Tensor) -> Tensor:
        return logits.softmax(-2)


class Exchanged(Absolute):
    def projections(self) -> tuple[nn.Module, ...]:
        return self.key, self.query, self.value


class Conv(nn.Module):
    """A convolution and its BatchNorm, without an activation."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.act(self.bn(self.conv(x)))
        return normed


class Interleaved(nn.Module):
    """Query, key and value of a head side by side in one convolution; a depthwise one of the values as positions."""

    def __init__(self, depth: int, area: int = 1) -> None:
        super().__init__()
        self.num_heads, self.area = HEADS, area
        self.sizes = [depth, depth, C // HEADS]
        self.qkv = Conv(C, HEADS * sum(self.sizes))
        self.proj = Conv(C, C)
        self.pe = Conv(C, C, 3, groups=C)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(1, (HEADS, -1)).flatten(3).split(self.sizes, 2)
        parts = (part.unflatten(3, (self.area, -1)).movedim(3, 1) for part in (query, key, value))
        query, key, runs = parts
        mixed = runs @ self.weights(query.transpose(-2, -1) @ key).transpose(-2, -1)
        projected: Tensor = self.proj(mixed.movedim(1, 3).reshape(x.shape) + self.pe(value.reshape(x.shape)))
        return projected

    def weights(self, products: Tensor) -> Tensor:
        return (products / math.sqrt(self.sizes[0])).softmax(-1)


def merged(module: nn.Module) -> nn.Module:
    """BatchNorms gone, and biases in their place."""
    for part in module.modules():
        if isinstance(part, Conv):
            part.conv.bias = nn.Parameter(torch.zeros(part.conv.out_channels))
            part.bn = nn.Identity()
    return module


class NotScaled(Interleaved):
    def weights(self, products: Tensor) -> Tensor:
        return products.softmax(-1)


class SideBySide(nn.Module):
    """Queries and keys of one convolution, values of another."""

    def __init__(self, area: int) -> None:
        super().__init__()
        self.num_heads, self.area = HEADS, area
        self.qk, self.v = Conv(C, 2 * C), Conv(C, C)
        self.proj, self.pe = Conv(C, C), Conv(C, C, 5, groups=C)

    def forward(self, x: Tensor) -> Tensor:
        value = self.v(x)
        query, key, runs = (
            part.unflatten(1, (HEADS, -1)).flatten(3).unflatten(3, (self.area, -1)).movedim(3, 1)
            for part in (*self.qk(x).chunk(2, 1), value)
        )
        weights = ((query.transpose(-2, -1) @ key) * (C // HEADS) ** -0.5).softmax(-1)
        mixed = (runs @ weights.transpose(-2, -1)).movedim(1, 3).reshape(x.shape)
        projected: Tensor = self.proj(mixed + self.pe(value))
        return projected


ABSOLUTE: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Absolute(False),
    "scaled": lambda: Absolute(False, (C // HEADS) ** -0.5),
    "scaled by all channels": lambda: Absolute(False, C**-0.5),
    "positions": lambda: Absolute(True),
    "positions, both scaled": lambda: Absolute(True, (C // HEADS) ** -0.5),
    "positions, not scaled": lambda: Absolute(True, (C // HEADS) ** -0.5, of_positions=False),
    "the catalogue's names": lambda: foreign("mhsa", channels=C, heads=2, pos_emb=True, width=7, height=9),
    "extents exchanged": lambda: foreign("mhsa", channels=C, heads=2, pos_emb=True, width=9, height=7),
    "a larger table": lambda: foreign("mhsa", channels=C, heads=4, pos_emb=True, width=8, height=14),
}


@pytest.mark.parametrize("made", ABSOLUTE.values(), ids=ABSOLUTE)
@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_attention_with_an_absolute_table_is_replaced(made: Callable[[], nn.Module], engine: str) -> None:
    check_replaced(network_with(made(), C), "mhsa", engine=engine)


def test_a_number_of_heads_that_no_attribute_says_is_found() -> None:
    module = foreign("mhsa", channels=C, heads=8)
    del module.heads
    type(module).heads = property(lambda self: 8)
    result = check_replaced(network_with(module, C), "mhsa")
    assert "8 heads" in result.findings[0].evidence


@pytest.mark.parametrize(
    "module", [OfThePaper(True), OverQueries(False), Exchanged(True), Absolute(False, 0.9), Absolute(True, 0.9)]
)
def test_attention_of_other_mathematics_is_left_alone(module: nn.Module) -> None:
    check_left_alone(network_with(module, C))


def test_exchanged_projections_are_told_apart_also_without_positions() -> None:
    module = Exchanged(False)
    check_left_alone(network_with(module, C))


RELATIVE: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"qkv_bias": True},
    "positions scaled": {"scale_pos_embed": True, "qkv_bias": True},
    "other outputs and depth": {"dim_out": 36, "dim_head": 5, "num_heads": 3, "qkv_bias": True},
    "stride": {"stride": 2},
}


@pytest.mark.parametrize("options", RELATIVE.values(), ids=RELATIVE)
@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_attention_with_relative_positions_is_replaced(options: dict[str, Any], engine: str) -> None:
    network = network_with(BottleneckAttn(C, feat_size=SIZE, **options), C)
    result = check_replaced(network, "mhsa_relative", engine=engine)
    assert result.findings[0].evidence[0] == "type timm.layers.bottleneck_attn.BottleneckAttn"


class Halved(BottleneckAttn):
    """The whole logits divided by two."""

    def forward(self, x: Tensor) -> Tensor:
        self.qkv.weight.data[: self.dim_out_qk] /= 2
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        self.qkv.weight.data[: self.dim_out_qk] *= 2
        return y


def test_relative_positions_of_other_mathematics_are_left_alone() -> None:
    check_left_alone(network_with(Halved(C, feat_size=SIZE), C))


def test_relative_positions_are_for_one_size() -> None:
    _, finding = rewritten(network_with(BottleneckAttn(C, feat_size=SIZE), C), dynamic_size=True)
    assert not finding.replaced
    assert "for maps of 7x9 only" in str(finding.reason)


CONVOLVED: dict[str, Callable[[], nn.Module]] = {
    "half depth": lambda: Interleaved(C // HEADS // 2),
    "full depth": lambda: Interleaved(C // HEADS),
    "norms merged": lambda: merged(Interleaved(4)),
    "areas": lambda: Interleaved(C // HEADS, area=3),
    "side by side": lambda: SideBySide(1),
    "side by side, areas": lambda: SideBySide(9),
}


@pytest.mark.parametrize("made", CONVOLVED.values(), ids=CONVOLVED)
@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_attention_with_a_convolution_of_the_values_is_replaced(made: Callable[[], nn.Module], engine: str) -> None:
    check_replaced(network_with(made(), C), "mhsa_convolved", engine=engine)


def test_a_convolution_of_the_values_serves_any_size_without_areas() -> None:
    check_replaced(network_with(Interleaved(4), C), "mhsa_convolved", dynamic_size=True)
    _, finding = rewritten(network_with(Interleaved(8, area=3), C), dynamic_size=True)
    assert not finding.replaced
    assert "3 areas" in str(finding.reason)


def test_convolved_attention_of_other_mathematics_is_left_alone() -> None:
    check_left_alone(network_with(NotScaled(4), C))


def test_many_places_are_attended_to_in_blocks() -> None:
    network = randomised(Interleaved(4))
    result = rewrite(network, torch.randn(1, C, 28, 28))
    assert result.findings[0].replaced, result.findings[0].reason
    form: Any = result.model
    assert len(form.blocks) > 1


@pytest.mark.parametrize(
    "module",
    [
        Absolute(True),
        BottleneckAttn(C, feat_size=SIZE, qkv_bias=True, stride=2),
        Interleaved(4),
        Interleaved(8, area=3),
    ],
)
def test_rewritten_attention_runs_in_onnxruntime(module: nn.Module) -> None:
    check_in_onnxruntime(network_with(module, C))


def test_modules_that_only_share_names_are_not_recognised() -> None:
    linear: Any = Absolute(False)
    linear.query = nn.Linear(C, C)
    activated: Any = Interleaved(4)
    activated.proj.act = nn.SiLU()
    unnamed: Any = Interleaved(4)
    del unnamed.num_heads
    rest = nn.Module()
    rest.qkv, rest.pos_embed = nn.Linear(4, 12), nn.Identity()
    for module in (linear, activated, unnamed, rest):
        assert list(mhsa.recognise(module)) == []
