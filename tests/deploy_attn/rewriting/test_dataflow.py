"""Whose output is read by one module and by nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploy_attn.export.arguments import Arguments
from deploy_attn.rewriting.dataflow import Asked, Hop, dataflow

X = torch.linspace(-1, 1, 2 * 3 * 4).reshape(2, 3, 4).double()


class Second(nn.Module):
    """Reads its first input, and a buffer; it may fail after that."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1, dtype=torch.float64))

    def forward(self, y: Tensor, other: Tensor | None = None, fails: bool = False) -> Tensor:
        result = y * self.get_buffer("scale")
        if fails:
            raise ArithmeticError
        return result


class Network(nn.Module):
    """Two modules, put together by a function."""

    def __init__(self, together: Callable[[Any, Tensor], Any], first: nn.Module | None = None) -> None:
        super().__init__()
        self.together = together
        self.first = first or nn.Linear(4, 4).double()
        self.second = Second()

    def forward(self, x: Tensor) -> Any:
        return self.together(self, x)


def hops_of(together: Callable[[Any, Tensor], Any], first: nn.Module | None = None) -> tuple[Hop, ...]:
    network = Network(together, first).eval()
    asked = Asked([network.first], [network.second], lambda module, x: x)
    hops = dataflow(network, asked, Arguments.of(X)).hops
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    return hops


def reading_its_shape(network: Any, x: Tensor) -> Tensor:
    y = network.first(x)
    result: Tensor = network.second(y).reshape(y.shape[0], y.size(1), -1) if y.dim() == y.ndim else y
    return result


def writing_into_the_input_afterwards(network: Any, x: Tensor) -> Tensor:
    result: Tensor = network.second(network.first(x))
    x.zero_()
    return result


@pytest.mark.parametrize(
    "together",
    [
        lambda network, x: network.second(network.first(x)),
        lambda network, x: (network.second(network.first(x)), x + 1),
        reading_its_shape,
        writing_into_the_input_afterwards,
    ],
)
def test_what_one_module_reads_goes_to_it(together: Callable[[Any, Tensor], Any]) -> None:
    (hop,) = hops_of(together)
    assert isinstance(hop.first, nn.Linear)
    assert isinstance(hop.second, Second)
    assert torch.equal(hop.fed, X)


def reading_it_as_well(network: Any, x: Tensor) -> Tensor:
    y = network.first(x)
    result: Tensor = network.second(y) + y
    return result


def reading_it_by_name(network: Any, x: Tensor) -> Tensor:
    y = network.first(x)
    return torch.add(network.second(y), other=y)


def reading_it_before(network: Any, x: Tensor) -> Tensor:
    y = network.first(x)
    total = y.sum()
    result: Tensor = network.second(y) + total
    return result


def returning_it_in_a_nest(network: Any, x: Tensor) -> dict[str, list[Tensor]]:
    y = network.first(x)
    return {"both": [network.second(y), y]}


def reading_what_failed(network: Any, x: Tensor) -> Tensor:
    y = network.first(x)
    with contextlib.suppress(ArithmeticError):
        network.second(y, fails=True)
    result: Tensor = y + 1
    return result


def calling_the_first_twice(network: Any, x: Tensor) -> Tensor:
    network.first(x)
    result: Tensor = network.second(network.first(x))
    return result


def calling_the_second_twice(network: Any, x: Tensor) -> Tensor:
    result: Tensor = network.second(network.first(x)) + network.second(x)
    return result


def using_a_weight_of_the_first(network: Any, x: Tensor) -> Tensor:
    result: Tensor = network.second(network.first(x)) + network.first.weight.sum()
    return result


def using_a_buffer_of_the_second(network: Any, x: Tensor) -> Tensor:
    result: Tensor = network.second(network.first(x)) + network.second.scale
    return result


def dropping_it(network: Any, x: Tensor) -> Tensor:
    network.first(x)
    result: Tensor = network.second(x * 2)
    return result


def giving_it_as_a_second_input(network: Any, x: Tensor) -> Tensor:
    result: Tensor = network.second(x, network.first(x))
    return result


def giving_a_weight(network: Any, x: Tensor) -> Tensor:
    network.first(x)
    result: Tensor = network.second(network.first.weight)
    return result


def calling_by_name(network: Any, x: Tensor) -> Tensor:
    result: Tensor = network.second(network.first(input=x))
    return result


@pytest.mark.parametrize(
    "together",
    [
        reading_it_as_well,
        reading_it_by_name,
        reading_it_before,
        returning_it_in_a_nest,
        reading_what_failed,
        calling_the_first_twice,
        calling_the_second_twice,
        using_a_weight_of_the_first,
        using_a_buffer_of_the_second,
        dropping_it,
        giving_it_as_a_second_input,
        giving_a_weight,
        calling_by_name,
    ],
)
def test_what_anything_else_sees_goes_nowhere(together: Callable[[Any, Tensor], Any]) -> None:
    assert hops_of(together) == ()


class Twofold(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


def test_a_module_that_makes_several_tensors_makes_none_that_is_followed() -> None:
    first = Twofold(4, 4).double()
    assert hops_of(lambda network, x: network.second(network.first(x)[0]), first) == ()


def test_weights_that_two_modules_share_belong_to_neither() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.twin, self.second = nn.Linear(4, 4).double(), nn.Linear(4, 4).double(), Second()
            self.twin.weight = self.first.weight

        def forward(self, x: Tensor) -> Any:
            return self.second(self.first(x)), self.twin(x)

    network = Shared()
    asked = Asked([network.first, network.twin], [network.second], lambda module, x: x)
    assert dataflow(network, asked, Arguments.of(X)).hops == ()
