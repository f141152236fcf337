"""What a module was called with is kept as it was then."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from deploy_attn.export.arguments import Arguments
from deploy_attn.rewriting.observe import observe


class Writes(nn.Module):
    """Calls a part of it twice, by place and by name, and writes into what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Identity()

    def forward(self, x: Tensor, fails: bool = False) -> Tensor:
        y = 2 * x
        self.part(y)
        y.zero_()
        if fails:
            raise ArithmeticError
        output: Tensor = self.part(input=x + 1)
        return output


def test_calls_are_kept_in_order_as_they_were() -> None:
    network, x = Writes(), torch.ones(1, 2)
    seen = observe(network, [network.part], Arguments.of(x))
    first, second = seen.calls[network.part]
    assert torch.equal(first.positional[0], 2 * x)
    assert torch.equal(second.named["input"], x + 1)
    assert torch.equal(seen.returned, x + 1)
    assert not network.part._forward_pre_hooks


def test_what_the_network_raises_goes_through_and_leaves_no_hook() -> None:
    network = Writes()
    with pytest.raises(ArithmeticError):
        observe(network, [network.part], Arguments((torch.ones(1, 2), True), {}))
    assert not network.part._forward_pre_hooks
