"""Non-local blocks of four sources."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploy_attn.rewriting.families import non_local
from tests.deploy_attn.rewriting.foreign import foreign
from tests.deploy_attn.rewriting.stem import check_in_onnxruntime, check_left_alone, check_replaced, network_with
from tests.torchvision_here import torchvision_here

torchvision_here()

from timm.layers.non_local_attn import NonLocalAttn  # noqa: E402  # torchvision is imported before timm

C, D = 16, 6
MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


class Block(nn.Module):
    """One formula for all sources; a subtype names and nests the layers as a source does."""

    names: Mapping[str, str] = MappingProxyType({})

    def __init__(self, mode: str, sub_sample: bool = False, bn_layer: bool = False, scale: float = 1.0) -> None:
        super().__init__()
        self.mode, self.factor = mode, scale
        for name in ("g",) if mode == "gaussian" else ("g", "theta", "phi"):
            pooled = sub_sample and name != "theta"
            self.place(name, nn.Sequential(self.layer(C, D), nn.MaxPool2d(2)) if pooled else self.layer(C, D))
        if mode == "gaussian":
            self.place("phi", nn.MaxPool2d(2) if sub_sample else nn.Identity())
        if mode == "concatenation":
            self.place("concat_project", self.pairing())
        self.place("W", self.last(bn_layer))

    def layer(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Conv2d(inputs, outputs, 1)

    def pairing(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(2 * D, 1, 1, bias=False), nn.ReLU())

    def last(self, bn_layer: bool) -> nn.Module:
        return nn.Sequential(nn.Conv2d(D, C, 1), nn.BatchNorm2d(C)) if bn_layer else nn.Conv2d(D, C, 1)

    def place(self, name: str, module: nn.Module) -> None:
        self.add_module(self.names.get(name, name), module)

    def part(self, name: str) -> Any:
        return self.get_submodule(self.names.get(name, name))

    def forward(self, x: Tensor) -> Tensor:
        theta = (x if self.mode == "gaussian" else self.part("theta")(x)).flatten(2)
        phi, g = self.part("phi")(x).flatten(2), self.part("g")(x).flatten(2)
        y = g @ self.weights(theta, phi).transpose(1, 2)
        last: Tensor = self.part("W")(y.reshape(len(x), D, *x.shape[2:]))
        return last + x

    def weights(self, theta: Tensor, phi: Tensor) -> Tensor:
        if self.mode == "concatenation":
            places, attended = theta.shape[2], phi.shape[2]
            pairs = torch.cat(
                [theta[..., None].expand(-1, -1, -1, attended), phi[:, :, None].expand(-1, -1, places, -1)], 1
            )
            projected: Tensor = self.part("concat_project")(pairs)[:, 0]
            return projected / attended
        products = theta.transpose(1, 2) @ phi * self.factor
        return products / phi.shape[2] if self.mode == "dot_product" else products.softmax(-1)


class Module(nn.Module):
    """A convolution inside a module, and perhaps a norm beside it."""

    def __init__(self, inputs: int, outputs: int, norm: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=bias and not norm)
        self.bn = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        self.activate: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.activate(self.bn(self.conv(x)))
        return made


class OfModules(Block):
    """Each layer in a module of its own; with a norm the last convolution has no bias."""

    names = MappingProxyType({"W": "conv_out"})

    def layer(self, inputs: int, outputs: int) -> nn.Module:
        return Module(inputs, outputs)

    def pairing(self) -> nn.Module:
        module = Module(2 * D, 1, bias=False)
        module.activate = nn.ReLU()
        return module

    def last(self, bn_layer: bool) -> nn.Module:
        return Module(D, C, norm=bn_layer)


class WithOtherLastNames(Block):
    names = MappingProxyType({"W": "W_z", "concat_project": "W_f"})


@pytest.mark.parametrize("kind", [Block, OfModules, WithOtherLastNames])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sub_sample", [True, False])
def test_every_mode_of_every_source_is_replaced(kind: type[Block], mode: str, sub_sample: bool) -> None:
    result = check_replaced(network_with(kind(mode, sub_sample, bn_layer=sub_sample), C), "non_local")
    assert f"mode {mode}" in result.findings[0].evidence


@pytest.mark.parametrize("scale", [1.0, D**-0.5, C**-0.5])
@pytest.mark.parametrize("kind", [Block, OfModules])
def test_the_scale_of_the_logits_is_found(kind: type[Block], scale: float) -> None:
    check_replaced(network_with(kind("embedded_gaussian", bn_layer=True, scale=scale), C), "non_local", engine="gpu")


@pytest.mark.parametrize("use_scale", [True, False])
def test_timms_block_is_replaced(use_scale: bool) -> None:
    block: Any = NonLocalAttn(C, use_scale)  # type: ignore[no-untyped-call]
    result = check_replaced(network_with(block, C), "non_local", dynamic_size=True)
    assert result.findings[0].evidence[0] == "type timm.layers.non_local_attn.NonLocalAttn"


def test_the_scale_may_be_any_attribute_of_that_name() -> None:
    block: Any = NonLocalAttn(C)  # type: ignore[no-untyped-call]
    block.scale = 0.37
    check_replaced(network_with(block, C), "non_local")


@pytest.mark.parametrize("mode", MODES)
def test_a_copy_of_the_catalogues_source_is_replaced(mode: str) -> None:
    check_replaced(network_with(foreign("non_local", channels=C, mode=mode), C), "non_local")


class OverQueries(Block):
    def weights(self, theta: Tensor, phi: Tensor) -> Tensor:
        return (theta.transpose(1, 2) @ phi).softmax(1)


class NotDivided(Block):
    def weights(self, theta: Tensor, phi: Tensor) -> Tensor:
        return theta.transpose(1, 2) @ phi


class WithoutResidual(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - x


class OtherPairs(Block):
    """Pairs in the other order."""

    def weights(self, theta: Tensor, phi: Tensor) -> Tensor:
        return super().weights(phi, theta).transpose(1, 2) if self.mode == "concatenation" else phi


@pytest.mark.parametrize(
    "block",
    [
        OverQueries("embedded_gaussian"),
        NotDivided("dot_product"),
        WithoutResidual("gaussian"),
        OtherPairs("concatenation"),
        Block("embedded_gaussian", scale=0.7),
        Block("dot_product", scale=0.7),
    ],
)
def test_blocks_of_other_mathematics_are_left_alone(block: Block) -> None:
    check_left_alone(network_with(block, C))


@pytest.mark.parametrize("mode", MODES)
def test_a_rewritten_block_runs_in_onnxruntime(mode: str) -> None:
    check_in_onnxruntime(network_with(OfModules(mode, sub_sample=True, bn_layer=True), C))


def test_modules_that_only_share_names_are_not_recognised() -> None:
    more: Any = Block("embedded_gaussian")
    more.extra = nn.Conv2d(1, 1, 1)
    volumes: Any = Block("embedded_gaussian")
    volumes.W = nn.Conv3d(D, C, 1)
    for module in (more, volumes):
        assert list(non_local.recognise(module)) == []
