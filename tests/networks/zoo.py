"""Real networks, not ours, with weights that hide nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.torchvision_here import torchvision_here


@dataclass(frozen=True)
class Network:
    """A network, the size of its input, and how many attention blocks of which class it has."""

    build: Callable[[], nn.Module]
    size: int
    blocks: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (1, 3, self.size, self.size)


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torchvision_here()
        import timm

        network: nn.Module = timm.create_model(name, pretrained=False, **options)
        return network

    return build


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        network: nn.Module = torchvision_here().models.get_model(name, weights=None)
        return network

    return build


ZOO: Mapping[str, Network] = {
    "seresnet50": Network(_timm("seresnet50"), 224, {"SEModule": 16}),
    "ecaresnet50t": Network(_timm("ecaresnet50t"), 256, {"EcaModule": 16}),
    "skresnet18": Network(_timm("skresnet18"), 224, {"SelectiveKernel": 8}),
    "mobilenetv3_small_100": Network(_timm("mobilenetv3_small_100"), 224, {"SqueezeExcite": 9}),
    "efficientnet_b0": Network(_timm("efficientnet_b0"), 224, {"SqueezeExcite": 16}),
    "gcresnet33ts": Network(_timm("gcresnet33ts"), 256, {"GlobalContext": 10}),
    "cbam_resnet18": Network(_timm("resnet18", block_args={"attn_layer": "cbam"}), 224, {"CbamModule": 8}),
    "coatnet_nano_rw_224": Network(_timm("coatnet_nano_rw_224"), 224, {"SEModule": 7, "Attention2d": 9}),
    "mobilevit_s": Network(_timm("mobilevit_s"), 256, {"Attention": 9}),
    "torchvision_mobilenet_v3_small": Network(_torchvision("mobilenet_v3_small"), 224, {"SqueezeExcitation": 9}),
    "torchvision_efficientnet_b0": Network(_torchvision("efficientnet_b0"), 224, {"SqueezeExcitation": 16}),
}


def ready(name: str) -> nn.Module:
    """A network whose BatchNorms have statistics of their own inputs and weights that are neither zero nor one.

    Fresh ones begin with zeros in the last BatchNorm of each block, behind which attention could be anything.
    """
    torch.manual_seed(0)
    network = ZOO[name].build()
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.1)
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(_images(ZOO[name].size))
    return network.eval()


def _images(size: int) -> Tensor:
    return torch.randn(4, 3, size, size)
