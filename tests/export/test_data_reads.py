"""Holds that a line which reads values of the input is found, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from deploy_attn.export.arguments import Arguments
from deploy_attn.export.data_reads import data_reads
from tests.export.networks import Returns


class _Counts(nn.Module):
    """A parameter, and a buffer that does not depend on the input."""

    def __init__(self, function: Callable[[_Counts, Tensor], object]) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("seen", torch.zeros(3))
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


def _reads(function: Callable[[_Counts, Tensor], object]) -> int:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), _Counts(function))
    with torch.no_grad():
        found = data_reads(network, Arguments.of(torch.randn(1, 3, 4, 4)))
    assert {(read.path, read.class_name) for read in found} <= {("1", "_Counts")}
    assert all("test_data_reads.py:" in read.place for read in found)
    return len(found)


def _written(network: _Counts, x: Tensor) -> float:
    y = torch.zeros(1, 3, 4, 4)
    y[:, 0] = x[:, 0]
    return float(y.sum())


def _into(network: _Counts, x: Tensor) -> list[float]:
    result = torch.empty(1, 4, 4)
    torch.sum(x, (1,), out=result)
    values: list[float] = result.flatten().tolist()
    return values


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda network, x: 1 if x.sum() > 0 else 2, id="a branch"),
        pytest.param(lambda network, x: float(x.abs().max()), id="a number"),
        pytest.param(lambda network, x: x.argmax().item(), id="an index"),
        pytest.param(lambda network, x: int(x.argmax()), id="an integer"),
        pytest.param(lambda network, x: x.detach().numpy(), id="an array"),
        pytest.param(lambda network, x: x.flatten().tolist(), id="a list"),
        pytest.param(lambda network, x: torch.equal(x, x + 1), id="a comparison"),
        pytest.param(lambda network, x: torch.allclose(x, x + 1), id="a near comparison"),
        pytest.param(lambda network, x: torch.isnan(x).any() and 3, id="a check"),
        pytest.param(lambda network, x: bool(torch.stack([x, x]).mean()), id="from a list"),
        pytest.param(lambda network, x: network.seen.add_(x.mean()).tolist(), id="a state"),
        pytest.param(lambda network, x: [0, 1, 2][x.argmax() % 3], id="a place in a list"),
        pytest.param(_written, id="through an assignment"),
        pytest.param(_into, id="through an output argument"),
    ],
)
def test_a_value_that_follows_from_the_input_is_found(function: Callable[[_Counts, Tensor], object]) -> None:
    assert _reads(function) == 1


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda network, x: x * 2 if x.shape[2] % 2 else x, id="a shape"),
        pytest.param(lambda network, x: x.view(int(x.size(0)), -1), id="a size"),
        pytest.param(lambda network, x: x * network.gain.item(), id="a parameter"),
        pytest.param(lambda network, x: x if network.seen.sum() > 0 else -x, id="a buffer"),
        pytest.param(lambda network, x: x[torch.arange(3).tolist()[0]], id="a constant"),
        pytest.param(lambda network, x: [row.mean() for row in x], id="rows"),
        pytest.param(lambda network, x: torch.where(x > 0, x, -x), id="a choice in the graph"),
        pytest.param(lambda network, x: x.dtype == torch.float32 and len(x), id="type and length"),
        pytest.param(lambda network, x: nn.MultiheadAttention(4, 2)(x[0], x[0], x[0])[0], id="torch's own layer"),
        pytest.param(
            lambda network, x: nn.functional.gaussian_nll_loss(x, x, x.abs() + 1), id="a check of a layer of torch"
        ),
    ],
)
def test_what_does_not_follow_from_the_input_is_none(function: Callable[[_Counts, Tensor], object]) -> None:
    assert _reads(function) == 0


def test_a_line_that_runs_often_is_listed_once_and_shown() -> None:
    def twice(x: Tensor) -> Tensor:
        result: Tensor = x + sum(value.item() for value in x.flatten())
        return result

    (read,) = data_reads(Returns(twice), Arguments.of(torch.ones(1, 3, 1, 1)))
    assert read.code == "result: Tensor = x + sum(value.item() for value in x.flatten())"
    assert read.text.endswith(f"in the network itself (Returns): `{read.code}`")
