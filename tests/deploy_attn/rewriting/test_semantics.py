"""A network of one meaning computes what all agree on as it stands."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deploy_attn.export.arguments import Arguments
from deploy_attn.rewriting.aliasing import WRITES_VIEW
from deploy_attn.rewriting.semantics import settled

X = torch.randn((1, 4, 3, 3), generator=torch.Generator().manual_seed(0))


class WritesTwice(nn.Module):
    """Into its input as everybody reads it, and through a view of its own that exporters lose."""

    def forward(self, x: Tensor) -> Tensor:
        x.add_(1)
        y = torch.zeros_like(x)
        y.view(-1)[:5] = 2
        return y


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.writer = WritesTwice()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        x = x * 3
        self.get_buffer("calls").add_(1)
        output: Tensor = self.writer(x) + x
        return output


def test_a_write_into_the_input_that_all_see_is_not_hidden_with_others() -> None:
    network = Reads().eval()
    twin, (finding,) = settled(network, Arguments.of(X), None)
    assert (finding.path, finding.kind, finding.asks) == ("writer", WRITES_VIEW, False)
    assert twin is not network
    assert torch.equal(twin(X.clone()), network(X.clone()))


def test_looking_for_writes_does_not_run_the_network_itself() -> None:
    network = Reads().train()
    settled(network, Arguments.of(X), None)
    assert float(network.get_buffer("calls")) == 0
    assert network.training
