"""Global context under names of others: found, replaced and exact; look-alikes are left alone."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.modules.global_context_forms import ContextGates
from tests.deploy_attn.rewriting.stem import (
    check_in_onnxruntime,
    check_left_alone,
    check_replaced,
    network_with,
    photo,
)
from tests.torchvision_here import torchvision_here

C, H = 16, 5


class Block(nn.Module):
    """Keys `conv_mask`, `channel_add_conv.{0,1,3}`, `channel_mul_conv.{0,1,3}`."""

    def __init__(self, masked: bool = True, uses: str = "add", eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.conv_mask = nn.Conv2d(C, 1, 1) if masked else None
        self.channel_add_conv = self.layers(eps, affine) if "add" in uses else None
        self.channel_mul_conv = self.layers(eps, affine) if "mul" in uses else None

    def layers(self, eps: float, affine: bool) -> nn.Module:
        norm = nn.LayerNorm([H, 1, 1], eps=eps, elementwise_affine=affine)
        return nn.Sequential(nn.Conv2d(C, H, 1), norm, nn.ReLU(inplace=True), nn.Conv2d(H, C, 1))

    def weighted(self, x: Tensor, mask: nn.Module) -> Tensor:
        weights: Tensor = mask(x).flatten(2).softmax(2)
        return (x.flatten(2) @ weights.transpose(1, 2))[..., None]

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.conv_mask
        context = x.mean((2, 3), keepdim=True) if mask is None else self.weighted(x, mask)
        out = x
        if self.channel_mul_conv is not None:
            out = out * self.gate(self.channel_mul_conv(context))
        if self.channel_add_conv is not None:
            out = out + self.channel_add_conv(context)
        return out


class Renamed(nn.Module):
    """Linear layers and a LayerNorm of a vector, one pair that scales, under no name that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.a, self.n, self.b = nn.Conv2d(C, 1, 1), nn.Linear(C, H), nn.LayerNorm(H), nn.Linear(H, C)

    def forward(self, x: Tensor) -> Tensor:
        weights = functional.softmax(self.look(x).flatten(2), -1)
        context = (x.flatten(2) * weights).sum(2)
        return x * functional.hardsigmoid(self.b(functional.gelu(self.n(self.a(context)))))[:, :, None, None]


class WithoutNorm(nn.Module):
    """A BatchNorm that folds, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Conv2d(C, 1, 1, bias=False)
        self.value = nn.Sequential(nn.Conv2d(C, H, 1), nn.BatchNorm2d(H, eps=1e-3), nn.SiLU(), nn.Conv2d(H, C, 1))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.key(x).flatten(1), 1)
        out: Tensor = x + self.value(torch.einsum("bcn,bn->bc", x.flatten(2), weights)[..., None, None])
        return out


@pytest.mark.parametrize(
    ("module", "evidence"),
    [
        (Block(), "plus channel_add_conv.3"),
        (Block(uses="mul", eps=1e-2), "times channel_mul_conv.3"),
        (Block(uses="add mul", affine=False), "times channel_mul_conv.3, plus channel_add_conv.3"),
        (Block(masked=False, uses="add mul"), "context by the mean of the map"),
        (Renamed(), "Hardsigmoid (hardsigmoid in forward)"),
        (WithoutNorm(), "context by a softmax of key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("dynamic_size", [False, True])
def test_every_variant_is_found_under_a_foreign_name_and_replaced(
    module: nn.Module, evidence: str, dynamic_size: bool
) -> None:
    result = check_replaced(network_with(module, C), "global_context", dynamic_size=dynamic_size)
    assert evidence in result.findings[0].evidence
    assert isinstance(result.model.get_submodule("attention"), ContextGates)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fuse_add": True, "act_layer": nn.SiLU, "gate_layer": "hard_sigmoid"},
        {"fuse_add": True, "fuse_scale": False},
        {"use_attn": False},
    ],
    ids=str,
)
def test_timms_module_is_replaced_with_all_its_options(options: dict[str, Any]) -> None:
    torchvision_here()
    from timm.layers.global_context import GlobalContext

    result = check_replaced(network_with(GlobalContext(C, **options), C), "global_context")
    assert result.findings[0].evidence[0] == "type timm.layers.global_context.GlobalContext"


class WholeMap(Block):
    """A softmax over every column, not over the map."""

    def weighted(self, x: Tensor, mask: nn.Module) -> Tensor:
        weights: Tensor = mask(x).softmax(2)
        return (x * weights).sum((2, 3), keepdim=True)


class Warmed(Block):
    def weighted(self, x: Tensor, mask: nn.Module) -> Tensor:
        weights: Tensor = (mask(x).flatten(2) / C).softmax(2)
        return (x.flatten(2) @ weights.transpose(1, 2))[..., None]


class Doubled(Block):
    def gate(self, x: Tensor) -> Tensor:
        return 2 * torch.sigmoid(x)


class HalfEps(nn.LayerNorm):
    """A LayerNorm by type, with another eps than it says."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, [H, 1, 1], self.weight, self.bias, self.eps / 2)


class OtherEps(Block):
    def layers(self, eps: float, affine: bool) -> nn.Module:
        return nn.Sequential(nn.Conv2d(C, H, 1), HalfEps([H, 1, 1]), nn.ReLU(), nn.Conv2d(H, C, 1))


class AddedFirst(Block):
    """(x + a) gate, not x gate + a."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.conv_mask is not None
        assert self.channel_add_conv is not None
        assert self.channel_mul_conv is not None
        context = self.weighted(x, self.conv_mask)
        added: Tensor = (x + self.channel_add_conv(context)) * self.gate(self.channel_mul_conv(context))
        return added


@pytest.mark.parametrize("kind", [WholeMap, Warmed, Doubled, OtherEps, AddedFirst])
def test_the_same_keys_with_other_mathematics_are_left_alone(kind: type[Block]) -> None:
    check_left_alone(network_with(kind(uses="add mul"), C))


def test_the_graph_for_old_targets_holds_in_onnxruntime() -> None:
    check_in_onnxruntime(network_with(Block(uses="add mul"), C))


def test_the_graph_for_old_targets_has_no_mask_bias_and_no_norm_of_its_own() -> None:
    result = check_replaced(network_with(Block(), C), "global_context", engine="gpu")
    graph = onnx_from_module(result.model, photo(), GraphRequest(13, 7)).graph
    assert "LayerNormalization" not in {node.op_type for node in graph.node}
    shapes = [onnx.numpy_helper.to_array(weight).shape for weight in graph.initializer]
    assert (1, C, 1, 1) in shapes
    assert (1,) not in shapes
