"""Pools over the whole map become reductions, and only those."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from deploy_attn.export.functions.rule import Aim
from tests.export.functions.exports import exported, network_of, proven

SIZED = {
    "mean": lambda x: functional.avg_pool2d(x, x.size()[2:]),
    "mean by strides": lambda x: functional.avg_pool2d(x, (x.size(2), x.size(3)), stride=(x.size(2), x.size(3))),
    "maximum": lambda x: functional.max_pool2d(x, kernel_size=x.size()[2:]),
    "torch's own": lambda x: torch.max_pool2d(x, list(x.size()[2:])),
    "columns": lambda x: functional.avg_pool2d(x, (x.size(2), 1)),
}


@pytest.mark.parametrize("function", SIZED.values(), ids=SIZED)
@pytest.mark.parametrize("dynamic_size", [False, True])
def test_a_window_of_the_whole_map_is_a_reduction(function: Callable[[Tensor], Tensor], dynamic_size: bool) -> None:
    got = exported(network_of(function), torch.randn(1, 4, 6, 8), dynamic_size=dynamic_size)
    assert got.error < 1e-5
    assert got.operators <= {"ReduceMean", "ReduceMax"}


OTHER = {
    "smaller": lambda x: functional.avg_pool2d(x, 3),
    "padded": lambda x: functional.avg_pool2d(x, 6, padding=1),
    "another divisor": lambda x: functional.avg_pool2d(x, 6, divisor_override=5),
    "strided along the other axis": lambda x: functional.max_pool2d(x, (6, 1), stride=(1, 2)),
    "dilated": lambda x: functional.max_pool2d(x, 3, dilation=2),
}


@pytest.mark.parametrize("function", OTHER.values(), ids=OTHER)
def test_other_windows_stay_pools(function: Callable[[Tensor], Tensor]) -> None:
    assert proven(network_of(function), torch.randn(1, 4, 6, 6), Aim(13)) == ()


def test_a_number_that_covers_an_open_map_by_chance_stays_a_window() -> None:
    got = exported(
        network_of(lambda x: functional.avg_pool2d(x, 6, stride=1)), torch.randn(1, 4, 6, 6), dynamic_size=True
    )
    assert got.operators == {"AveragePool"}
    assert got.error < 1e-5
