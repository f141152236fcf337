"""Rewriting a network: every instance once, under proof, and the caller's object untouched."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from deploy_attn import create, rewrite
from deploy_attn.modules.base import MapShape, ReferenceForm
from deploy_attn.modules.se import SEExport


class TwoSizes(nn.Module):
    """One instance at two sizes, one never called, one called."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = create("se", channels=16, reduction=4)
        self.idle = create("eca", channels=16)
        self.used = create("cbam", channels=16, reduction=4)

    def forward(self, x: Tensor) -> Tensor:
        small = torch.max_pool2d(self.shared(x), 2)
        output: Tensor = self.used(self.shared(small))
        return output


def test_what_cannot_be_proven_for_one_size_is_left_alone_with_a_reason() -> None:
    result = rewrite(TwoSizes(), torch.randn(1, 16, 8, 8))
    findings = {finding.paths: finding for finding in result.findings}
    assert findings["shared",].reason is not None
    assert "several sizes" in findings["shared",].reason
    assert findings["idle",].reason == "the network does not call it"
    assert findings["used",].replaced
    assert result.whole.passed


def test_the_callers_network_is_not_touched() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 1), create("s2", channels=16)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    classes = [type(module) for module in network.modules()]
    result = rewrite(network, torch.randn(1, 3, 5, 6))
    assert network.training
    assert [type(module) for module in network.modules()] == classes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(value.dtype == torch.float32 for value in network.state_dict().values())
    assert not any(isinstance(module, ReferenceForm) for module in result.model.modules())


def test_the_network_may_be_a_catalogue_module_itself() -> None:
    result = rewrite(create("se", channels=16, reduction=4), torch.randn(1, 16, 5, 6))
    assert isinstance(result.model, SEExport)
    assert result.findings[0].paths == ("",)


def test_the_networks_own_activations_are_among_the_trials() -> None:
    result = rewrite(nn.Sequential(create("se", channels=16, reduction=4)), torch.full((2, 16, 5, 6), 7.5))
    certificate = result.findings[0].certificate
    assert certificate is not None
    assert certificate.trials[-2].inputs == "the network's own, call 0"
    assert certificate.trials[-2].shape == (2, 16, 5, 6)


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Unfaithful(ReferenceForm):
    """Its export form is another function."""

    catalogue_name: ClassVar[str] = "unfaithful"

    def forward(self, x: Tensor) -> Tensor:
        return x

    def form_for(self, shape: MapShape, engine: str) -> nn.Module:
        return Doubling()


def test_an_unproven_replacement_is_not_made() -> None:
    result = rewrite(nn.Sequential(Unfaithful()), torch.randn(1, 4, 5, 6))
    assert not result.findings[0].replaced
    assert "not proven" in str(result.findings[0].reason)
    assert isinstance(result.model.get_submodule("0"), Unfaithful)


class Holds(ReferenceForm):
    """Another module of the catalogue, and what it gives as its form."""

    catalogue_name: ClassVar[str] = "holds"

    def __init__(self, after: nn.Module) -> None:
        super().__init__()
        self.inner, self.after = create("eca", channels=4), after

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.inner(x)
        return output

    def form_for(self, shape: MapShape, engine: str) -> nn.Module:
        return nn.Sequential(self.inner, self.after)


@pytest.mark.parametrize(
    ("after", "replaced"), [(nn.Identity(), {"0": True}), (Doubling(), {"0": False, "0.inner": True})]
)
def test_what_a_replaced_module_holds_is_not_looked_at(after: nn.Module, replaced: dict[str, bool]) -> None:
    result = rewrite(nn.Sequential(Holds(after)), torch.randn(1, 4, 5, 6))
    assert {finding.paths[0]: finding.replaced for finding in result.findings} == replaced


def test_the_result_has_the_chosen_meaning_of_its_writes_and_tells_of_them() -> None:
    class Shifts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x * 2
            x[:, 1:, :, :2] = x[:, :-1, :, :2]
            return x

    x = torch.randn(1, 4, 5, 6)
    result = rewrite(Shifts(), x, semantics="shift")
    wanted = 2 * x
    wanted[:, 1:, :, :2] = wanted[:, :-1, :, :2].clone()
    assert torch.equal(result.model(x), wanted)
    assert [finding.asks for finding in result.aliasing] == [True]
    assert result.as_dict()["aliasing"][0]["path"] == ""


class ReadsWeights(nn.Module):
    """A forward that changes with what stands in it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = create("se", channels=16, reduction=4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.gate(x)
        return output if isinstance(self.gate, ReferenceForm) else output + 1


def test_a_replacement_that_its_network_does_not_bear_is_taken_back() -> None:
    network = nn.Sequential(ReadsWeights(), create("eca", channels=16))
    result = rewrite(network, torch.randn(1, 16, 5, 6))
    reading, other = result.findings
    assert not reading.replaced
    assert "differs by" in str(reading.reason)
    assert "read attributes" in str(reading.reason)
    assert other.replaced
    assert result.whole.passed


class Fickle(ReferenceForm):
    """Its first three forms, for the size asked for, for another and for other weights, are right; later ones not."""

    catalogue_name: ClassVar[str] = "fickle"

    def __init__(self) -> None:
        super().__init__()
        self.made: list[nn.Module] = []

    def __deepcopy__(self, memo: dict[int, object]) -> Fickle:
        return self

    def forward(self, x: Tensor) -> Tensor:
        return x

    def form_for(self, shape: MapShape, engine: str) -> nn.Module:
        self.made.append(nn.Identity() if len(self.made) < 3 else Doubling())
        return self.made[-1]


def test_the_form_that_was_proven_is_the_one_that_is_used() -> None:
    result = rewrite(nn.Sequential(Fickle()), torch.randn(1, 4, 5, 6))
    assert result.findings[0].replaced
    assert isinstance(result.model.get_submodule("0"), nn.Identity)
