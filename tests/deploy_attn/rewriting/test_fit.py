"""Proven forms in their network: those that it bears together, and why it does not bear the others."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from deploy_attn.export.arguments import Arguments
from deploy_attn.jetson.errors import DeployAttnError
from deploy_attn.rewriting.finding import Finding
from deploy_attn.rewriting.fit import Fitted, Outcome, fit

X = Arguments((torch.randn((1, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64),), {})


class Doubled(nn.Module):
    """What is replaced."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Sum(nn.Module):
    """Its form, which counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[None] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(None)
        return x + x


class Three(nn.Module):
    """Three modules in a row, and what the network makes of the result."""

    def __init__(self, after: Callable[[Three, Tensor], Tensor]) -> None:
        super().__init__()
        self.after = after
        self.first, self.second, self.third = Doubled(), Doubled(), Doubled()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self, self.third(self.second(self.first(x))))

    def forms(self) -> int:
        return sum(isinstance(module, Sum) for module in self.children())


def outcomes_of(network: Three, *formless: str) -> list[Outcome]:
    def outcome(path: str, module: nn.Module) -> Outcome:
        form = None if path in formless else Sum()
        finding = Finding((path,), "Doubled", "doubled", (), form is not None, "alone" if form is None else None, None)
        return Outcome(module, finding, form)

    return [outcome(path, module) for path, module in network.named_children()]


def fitted(network: Three, outcomes: list[Outcome]) -> Fitted:
    return fit(network, outcomes, X, [network(X.tensors[0])])


def replaced(result: Fitted) -> dict[str, bool]:
    return {outcome.finding.paths[0]: outcome.finding.replaced for outcome in result.outcomes}


def test_a_network_that_bears_all_forms_is_run_once_with_them() -> None:
    network = Three(lambda self, y: y)
    outcomes = outcomes_of(network, "second")
    result = fitted(network, outcomes)
    assert result.outcomes == tuple(outcomes)
    assert [type(module) for module in result.network.children()] == [Sum, Doubled, Sum]
    assert result.network.get_submodule("first") is outcomes[0].form
    assert [len(outcome.form.calls) for outcome in outcomes if isinstance(outcome.form, Sum)] == [1, 1]
    assert network.forms() == 0
    assert result.whole.error == 0


def test_forms_that_a_network_bears_alone_but_not_together_are_taken_in_their_order() -> None:
    network = Three(lambda self, y: y + (self.forms() > 1))
    result = fitted(network, outcomes_of(network))
    assert replaced(result) == {"first": True, "second": False, "third": False}
    assert [type(module) for module in result.network.children()] == [Sum, Doubled, Doubled]
    assert [outcome.form is None for outcome in result.outcomes] == [False, True, True]
    assert result.whole.passed


def raising(network: Three, y: Tensor) -> Tensor:
    if not isinstance(network.second, Doubled):
        raise TypeError("second is to be Doubled\nfor ever")
    return y


@pytest.mark.parametrize(
    ("after", "problem"),
    [
        (lambda self, y: y + isinstance(self.second, Sum), r"differs by .* in float64 \(bound 1.0e-11\)"),
        (raising, "raises TypeError: second is to be Doubled,"),
    ],
)
def test_what_is_taken_back_stands_where_it_stood_and_says_why(
    after: Callable[[Three, Tensor], Tensor], problem: str
) -> None:
    network = Three(after)
    result = fitted(network, outcomes_of(network, "third"))
    assert replaced(result) == {"first": True, "second": False, "third": False}
    first, second, third = (outcome.finding.reason for outcome in result.outcomes)
    assert (first, third) == (None, "alone")
    assert re.search(problem, str(second))
    assert "read attributes of the module" in str(second)


def test_a_network_that_differs_from_its_own_copy_is_refused() -> None:
    state: list[None] = []

    def counting(network: Three, y: Tensor) -> Tensor:
        state.append(None)
        return y + len(state)

    network = Three(counting)
    with pytest.raises(DeployAttnError, match=r"A copy of the network differs by .* Is there a state\?"):
        fitted(network, outcomes_of(network))
