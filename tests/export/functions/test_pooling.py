"""Adaptive pooling: exact for every pair of extents, in graphs that TensorRT 8.2 reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from deploy_attn.export.functions import pooling
from deploy_attn.export.functions.rule import Aim
from tests.export.functions.exports import exported, network_of, proven

AIM = Aim(13)
FORMS: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
    (functional.adaptive_avg_pool2d, pooling.adaptive_avg_pool2d),
    (functional.adaptive_max_pool2d, pooling.adaptive_max_pool2d),
]
KINDS = pytest.mark.parametrize(("function", "form"), FORMS, ids=["average", "maximum"])
extents = st.integers(1, 23)
cells = st.one_of(st.none(), st.integers(1, 23))


@KINDS
@settings(max_examples=60, deadline=None)
@given(size=st.tuples(extents, extents), wanted=st.tuples(cells, cells))
def test_every_form_equals_the_pool(
    function: Callable[..., Any], form: Callable[..., Any], size: tuple[int, int], wanted: tuple[Any, Any]
) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(form(AIM, x, wanted), function(x, wanted), rtol=1e-13, atol=1e-13)


@settings(max_examples=30, deadline=None)
@given(extent=extents, count=st.integers(1, 23))
def test_every_form_of_a_row_equals_the_pool(extent: int, count: int) -> None:
    x = torch.randn(2, 3, extent, dtype=torch.float64)
    average, largest = pooling.adaptive_avg_pool1d(AIM, x, count), pooling.adaptive_max_pool1d(AIM, x, (count,))
    torch.testing.assert_close(average, functional.adaptive_avg_pool1d(x, count), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(largest, functional.adaptive_max_pool1d(x, count), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [0, 1], ids=["average", "maximum"])
@pytest.mark.parametrize(
    ("size", "wanted", "operators"),
    [
        ((12, 12), 1, ({"ReduceMean"}, {"ReduceMax"})),
        ((12, 9), (None, 1), ({"ReduceMean"}, {"ReduceMax"})),
        ((12, 12), 6, ({"AveragePool"}, {"MaxPool"})),
        ((13, 13), 3, ({"AveragePool"}, {"MaxPool"})),
        ((12, 12), 7, ({"MatMul"}, {"Slice", "ReduceMax", "Concat"})),
        ((20, 20), 6, ({"MatMul"}, {"Slice", "ReduceMax", "Concat"})),
        ((13, 20), (3, 6), ({"MatMul"}, {"Slice", "ReduceMax", "Concat"})),
        ((12, 9), (5, 1), ({"ReduceMean", "MatMul"}, {"Slice", "ReduceMax", "Concat"})),
        ((4, 4), 8, ({"MatMul"}, {"Slice", "ReduceMax", "Concat"})),
        ((7, 7), 7, (set(), set())),
    ],
)
def test_graphs_are_exact_and_of_plain_operators(
    size: tuple[int, int], wanted: Any, operators: tuple[set[str], set[str]], kind: int
) -> None:
    function, _ = FORMS[kind]
    got = exported(network_of(lambda x: function(x, wanted) * 2), torch.randn(1, 3, *size), dynamic_batch=True)
    assert got.error < 1e-5
    assert got.nano_errors == []
    assert all(finding.replaced for finding in got.findings)
    assert got.operators == operators[kind] | {"Mul"}


@KINDS
def test_pooling_to_one_cell_keeps_an_open_size(function: Callable[..., Any], form: object) -> None:
    assert exported(network_of(lambda x: function(x, 1)), torch.randn(1, 3, 8, 6), dynamic_size=True).error < 1e-5


@KINDS
def test_cells_of_an_open_size_are_left_alone_with_a_reason(function: Callable[..., Any], form: object) -> None:
    (finding,) = proven(network_of(lambda x: function(x, (1, 3))), torch.randn(1, 3, 8, 6), Aim(13, open_size=True))
    assert not finding.replaced
    assert "1x3" in str(finding.reason)


def test_a_pool_that_returns_places_is_left_alone_with_a_reason() -> None:
    network = network_of(lambda x: functional.adaptive_max_pool2d(x, 3, return_indices=True))
    (finding,) = proven(network, torch.randn(1, 3, 8, 8), AIM)
    assert not finding.replaced
    assert "return_indices" in str(finding.reason)
