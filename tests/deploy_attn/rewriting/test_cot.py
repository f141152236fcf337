"""The operator of the CoT paper: known, and refused with a reason."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.rewriting.families.cot import recognise
from deploy_attn.rewriting.rewrite import rewrite
from tests.deploy_attn.rewriting.stem import network_with, photo

C, SHARED, TAPS = 16, 8, 9


class Operator(nn.Module):
    """The paper's layer with its local step written by unfold; names of the official layers."""

    def __init__(self) -> None:
        super().__init__()
        self.key_embed = nn.Sequential(
            nn.Conv2d(C, C, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(C), nn.ReLU(inplace=True)
        )
        self.embed = nn.Sequential(
            nn.Conv2d(2 * C, C // 2, 1, bias=False),
            nn.BatchNorm2d(C // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(C // 2, TAPS * C // SHARED, 1),
            nn.GroupNorm(C // SHARED, TAPS * C // SHARED),
        )
        self.conv1x1 = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C))
        self.bn = nn.BatchNorm2d(C)
        self.se = nn.Sequential(nn.Conv2d(C, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2 * C, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        keys = self.key_embed(x)
        weights = self.embed(torch.cat([x, keys], 1)).reshape(b, 1, C // SHARED, TAPS, h, w)
        places = functional.unfold(self.conv1x1(x), 3, padding=1).reshape(b, SHARED, C // SHARED, TAPS, h, w)
        local = functional.silu(self.bn((places * weights).sum(3).reshape(b, C, h, w)))
        both = torch.stack([local, keys], 2)
        shares = self.se(both.sum(2).mean((2, 3), keepdim=True)).reshape(b, C, 2).softmax(2)
        mixed: Tensor = (both * shares[..., None, None]).sum(2)
        return mixed


def test_the_papers_operator_is_left_alone_with_a_reason() -> None:
    result = rewrite(network_with(Operator(), C), photo())
    (finding,) = (finding for finding in result.findings if finding.paths == ("attention",))
    assert (finding.recognised_as, finding.replaced) == ("cot", False)
    assert "unfold" in str(finding.reason)
    assert result.whole.error == 0


def test_names_alone_are_not_the_papers_operator() -> None:
    module = Operator()
    module.embed = nn.Sequential(nn.Conv2d(2 * C, C, 1))
    assert not list(recognise(module))
