"""Which elementwise functions a module has, by their values and by what its forward names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.rewriting.activations import activations_of
from deploy_attn.rewriting.forward_names import names_in_forward, numbers_in_forward


class Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(x.sigmoid())


class HalfSigmoid(nn.Module):
    """Torch has no such function."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid() / 2


@pytest.mark.parametrize(
    ("child", "names"),
    [
        (nn.ReLU(inplace=True), ["ReLU"]),
        (Swish(), ["SiLU"]),
        (HalfSigmoid(), ["HalfSigmoid"]),
        (nn.LeakyReLU(0.2), ["LeakyReLU"]),
        (nn.Sequential(nn.Sequential(nn.Tanh())), ["Tanh"]),
        (nn.Dropout(), []),
        (nn.Identity(), []),
        (nn.AdaptiveAvgPool2d(1), []),
        (nn.Flatten(), []),
        (nn.Softmax(1), []),
        (nn.Softmax(-1), []),
        (nn.BatchNorm2d(3), []),
        (nn.BatchNorm2d(3, affine=False, track_running_stats=False), []),
        (nn.Bilinear(2, 2, 2), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_child_is_what_it_computes(child: nn.Module, names: list[str]) -> None:
    found = activations_of(nn.Sequential(child).eval())
    assert [activation.name for activation in found] == names


def test_a_function_that_torch_lacks_is_a_copy_that_keeps_its_input() -> None:
    child = nn.LeakyReLU(0.2, inplace=True)
    (activation,) = activations_of(nn.Sequential(child))
    x = torch.tensor([-5.0, 5.0])
    assert activation.function(x).tolist() == [-1.0, 5.0]
    assert x.tolist() == [-5.0, 5.0]
    assert child.inplace


@pytest.mark.parametrize(
    ("function", "gate"),
    [(torch.sigmoid, True), (functional.hardsigmoid, True), (HalfSigmoid(), True), (torch.tanh, False)],
)
def test_a_gate_is_what_stays_from_0_to_1(function: Callable[[Tensor], Tensor], gate: bool) -> None:
    module = nn.Module()
    module.squash = function if isinstance(function, nn.Module) else nn.Identity()
    if not isinstance(function, nn.Module):
        vars(module)["function"] = function
    assert [activation.is_gate for activation in activations_of(module)] == [gate]


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def called(*arguments: Any) -> Any:
        return function(*arguments)

    return called


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = nn.Linear(2, 2)

    def twice(self, x: Tensor) -> Tensor:
        return functional.silu(x) * 0.25

    def unused(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    @decorated
    def forward(self, x: Tensor) -> Any:
        return self.sigmoid(self.twice(x)).mean()


class Heir(Base):
    def twice(self, x: Tensor) -> Tensor:
        return torch.stack([part.relu() for part in super().twice(x)])


def test_the_names_are_those_that_forward_reaches() -> None:
    names = names_in_forward(Base())
    assert {"twice", "silu", "mean"} <= {*names}
    assert {"sigmoid", "tanh", "called"}.isdisjoint(names)
    assert numbers_in_forward(Base()) == (0.25,)
    assert "relu" in names_in_forward(Heir())


def test_what_wraps_itself_and_what_has_no_code_has_no_names() -> None:
    def forward(x: Tensor) -> Tensor:
        return x.relu()

    module = Base()
    vars(module)["forward"] = functools.partial(torch.relu)
    assert names_in_forward(module) == ()
    vars(module)["forward"] = forward
    assert names_in_forward(module) == ("relu",)
    vars(forward)["__wrapped__"] = forward
    assert names_in_forward(module) == ()
