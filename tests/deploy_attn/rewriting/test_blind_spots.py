"""What holds on every example and is no proof: decisions by value, states, random numbers, limits far out."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.export.arguments import Arguments
from deploy_attn.rewriting.blind_spots import blind_spot
from tests.deploy_attn.rewriting.foreign import foreign
from tests.deploy_attn.rewriting.stem import check_left_alone, check_replaced, network_with

MAP = torch.randn((2, 6, 5, 4), generator=torch.Generator().manual_seed(7), dtype=torch.float64)


class Gate(nn.Module):
    """What all rows are beside what they hide, and the form of all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 6, 1).double()
        self.calls: Any = 0

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.layer(x.mean((2, 3), keepdim=True)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Decides(Gate):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.abs().max() < 1e6 else x


class Reads(Gate):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if float(x.mean()) < 1e6 else 2)


class Compares(Gate):
    def forward(self, x: Tensor) -> Tensor:
        return x if torch.equal(x, x + 1) else super().forward(x)


class Counts(Gate):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) if self.calls < 1000 else x


class Lists(Gate):
    def __init__(self) -> None:
        super().__init__()
        self.calls = {"seen": deque()}

    def forward(self, x: Tensor) -> Tensor:
        self.calls["seen"].append(1)
        return super().forward(x) * (len(self.calls["seen"]) < 1000)


class Averages(Gate):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.get_buffer("mean") + 1e-20 * x.mean((0, 2, 3))
        return super().forward(x) + self.mean.reshape(-1, 1, 1)


class Learns(Gate):
    def forward(self, x: Tensor) -> Tensor:
        self.layer.weight.data.mul_(1 - 1e-15)
        return super().forward(x)


class Draws(Gate):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(super().forward(x), 1e-12, training=True)


class Overwrites(Gate):
    def forward(self, x: Tensor) -> Tensor:
        gated = super().forward(x)
        x[:, 0].zero_()
        return gated


class Masks(Gate):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (x < 1e6)


class Chooses(Gate):
    def gate(self, x: Tensor) -> Tensor:
        return super().gate(torch.maximum(x, x.new_tensor(-1e6)))


class Clamps(Gate):
    def gate(self, x: Tensor) -> Tensor:
        return super().gate(x.clamp(-1e6, 1e6))


class Hard(Gate):
    def gate(self, x: Tensor) -> Tensor:
        return functional.hardsigmoid(self.layer(x.mean((2, 3), keepdim=True)))


class ByHand(Gate):
    def gate(self, x: Tensor) -> Tensor:
        return functional.relu6(self.layer(x.mean((2, 3), keepdim=True)) + 3) / 6


class Keeps(Gate):
    def forward(self, x: Tensor) -> Tensor:
        gate = self.calls = self.gate(x)
        return x * gate


class ClampsInPlace(Gate):
    def gate(self, x: Tensor) -> Tensor:
        return super().gate((x * 1).clamp_(-1e6, 1e6))


class Grows(Gate):
    """Its memory has one more key after every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = {}

    def forward(self, x: Tensor) -> Tensor:
        self.calls[len(self.calls)] = True
        return super().forward(x) * (len(self.calls) < 1000)


class Finds(Gate):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if len(x.nonzero()) else 2)


class Picks(Gate):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.masked_select(x.bool()).sum() * 1e-30


class IsNoNumber(Gate):
    def __init__(self) -> None:
        super().__init__()
        self.calls = float("nan")


class Views(Gate):
    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.layer(x.flatten(2).mean(2)[:, :, None, None]))


class Attends(Gate):
    """By a function that would draw random numbers at another rate."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(x, x, x, None, 0.0)


class DropsAttention(Gate):
    def forward(self, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(x, x, x, None, 1e-12)


class InPlace(Gate):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 1).mul_(self.gate(x))


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        (Decides(), "decides by a value (test_blind_spots.py:"),
        (Reads(), "decides by a value (test_blind_spots.py:"),
        (Compares(), "decides by a value (test_blind_spots.py:"),
        (Counts(), "keeps a state"),
        (Lists(), "keeps a state"),
        (Averages(), "keeps a state"),
        (Learns(), "keeps a state"),
        (Grows(), "keeps a state"),
        (Draws(), "draws random numbers"),
        (DropsAttention(), "draws random numbers"),
        (Finds(), "decides by a value"),
        (Picks(), "decides by a value"),
        (Overwrites(), "writes into its input"),
        (Masks(), "has a lt,"),
        (Chooses(), "has a maximum,"),
        (Clamps(), "has a clamp,"),
        (ClampsInPlace(), "has a clamp,"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_what_no_example_shows_is_named(subject: nn.Module, said: str) -> None:
    assert said in str(blind_spot(subject.eval(), Gate(), Arguments.of(MAP)))


@pytest.mark.parametrize(
    ("subject", "form"),
    [
        (Gate(), Gate()),
        (Keeps(), Gate()),
        (InPlace(), Gate()),
        (IsNoNumber(), Gate()),
        (Views(), Gate()),
        (Attends(), Gate()),
        (Hard(), Hard()),
        (ByHand(), Hard()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_module_that_hides_nothing_has_no_blind_spot(subject: nn.Module, form: nn.Module) -> None:
    assert blind_spot(subject.eval(), form.eval(), Arguments.of(MAP)) is None


def test_a_limit_beside_that_of_the_form_is_seen() -> None:
    class Twice(ByHand):
        def gate(self, x: Tensor) -> Tensor:
            return super().gate(functional.hardtanh(x, -1e6, 1e6))

    assert "has a clamp," in str(blind_spot(Twice(), Hard(), Arguments.of(MAP)))


def test_arguments_and_modes_are_left_as_they_are() -> None:
    given = MAP.clone()
    subject = Overwrites().eval()
    blind_spot(subject, Gate().eval(), Arguments.of(given))
    assert torch.equal(given, MAP)
    assert not subject.training


class States(Gate):
    """What a module adds to its state need not be a tensor."""

    def get_extra_state(self) -> Any:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


def test_an_extra_state_is_no_hindrance() -> None:
    check_replaced(network_with(States(), 6), "effective_se")


def _deciding(name: str, **options: object) -> nn.Module:
    module: nn.Module = foreign(name, **options)
    kind: Any = type(module)
    forward = kind.forward
    kind.forward = lambda self, x: forward(self, x) if x.abs().max() < 1e6 else x
    return module


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("shuffle", {"groups": 2}),
        ("sk", {}),
        ("mhsa", {"heads": 4}),
        ("non_local", {}),
        ("srm", {}),
        ("gct", {}),
        ("cot", {}),
        ("parnet", {}),
        ("s2", {}),
        ("gsop", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_decision_by_value_is_seen_in_every_family(name: str, options: dict[str, object]) -> None:
    check_left_alone(network_with(_deciding(name, channels=16, **options), 16))


@pytest.mark.parametrize("module", [Counts(), Masks(), Overwrites()], ids=lambda each: type(each).__name__)
def test_a_module_with_a_blind_spot_is_left_alone_in_its_network(module: nn.Module) -> None:
    check_left_alone(network_with(module, 6))
