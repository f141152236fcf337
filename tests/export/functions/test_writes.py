"""Slice assignments: rebuilt where the written memory is nobody else's, left alone elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deploy_attn.export.functions.memory import shares_memory
from deploy_attn.export.functions.rule import Aim
from deploy_attn.export.functions.writes import write_slices
from tests.export.functions.exports import both_ways, exported, network_of, proven

bound = st.one_of(st.none(), st.integers(-6, 6))
part = st.one_of(st.integers(-2, 1), st.builds(slice, bound, bound))


@settings(max_examples=150, deadline=None)
@given(index=st.lists(part, min_size=1, max_size=3), ellipsis=st.booleans(), number=st.booleans())
def test_every_form_holds_what_the_write_leaves(index: list[Any], ellipsis: bool, number: bool) -> None:
    y = torch.randn(2, 3, 4, 5)
    places = (..., *index) if ellipsis else tuple(index)
    value: Any = 0.5 if number else torch.randn(y[places].shape)
    form = write_slices(Aim(13), y, places, value)
    wanted = y.clone()
    wanted[places] = value
    assert form is None or torch.equal(form, wanted)
    assert form is not None or y[places].numel() in (0, y.numel())


@pytest.mark.parametrize(
    "index",
    [None, [0, 1], True, slice(0, 2, 2), torch.tensor([0, 1]), torch.tensor(True), slice(2, 1), slice(None), ...],
    ids=str,
)
def test_an_index_of_another_kind_has_no_form(index: Any) -> None:
    assert write_slices(Aim(13), torch.zeros(3, 3), index, 1.0) is None


def test_a_write_into_an_open_size_has_no_form() -> None:
    assert write_slices(Aim(13, open_size=True), torch.zeros(3, 3), 0, 1.0) is None


@pytest.mark.parametrize("value", [torch.ones(1, 1, 3), torch.arange(3), torch.ones(3, dtype=torch.float64)], ids=str)
def test_a_value_takes_the_type_and_the_axes_of_what_it_is_written_into(value: Tensor) -> None:
    y = torch.zeros(3, 3)
    form = write_slices(Aim(13), y, 1, value)
    y[1] = value
    assert form is not None
    assert form.dtype == y.dtype
    assert torch.equal(form, y)


def shifted(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, 1:] = x[:, :, :-1]
    return y


def four_shifts(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :2, :, 1:] = x[:, :2, :, :-1]
    y[:, 2:4, :, :-1] = x[:, 2:4, :, 1:]
    y[:, 4:6, 1:] = x[:, 4:6, :-1]
    y[:, 6:, :-1] = x[:, 6:, 1:]
    return y + x


def places_by_number(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = x.mean(1)
    y[..., 2:4] = 0.0
    y[:, 1:3] = x[:1, :1]
    return y * 2


@pytest.mark.parametrize("function", [shifted, four_shifts, places_by_number])
@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_the_graph_has_no_scatter(function: Callable[[Tensor], Tensor], dynamic_batch: bool) -> None:
    x = torch.randn(2, 8, 5, 6)
    got = exported(network_of(function), x, dynamic_batch=dynamic_batch)
    assert got.error < 1e-6
    assert "ScatterND" not in got.operators
    assert got.nano_errors == []
    assert all(finding.replaced for finding in got.findings)


def overlapping(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1:] = y[:, :-1]
    return y


def seen_through_a_view(x: Tensor) -> Tensor:
    y = x.clone()
    view = y[:, :2]
    y[:, 1:] = x[:, :-1]
    return y.sum() + view


def through_a_view(x: Tensor) -> Tensor:
    y = x.clone()
    view = y[:, :2]
    view[:, 1:] = x[:, :1]
    return y * 2


def through_a_view_by_name(x: Tensor) -> Tensor:
    y = x.clone()
    view = torch.narrow(input=y, dim=1, start=0, length=2)
    view[:, 1:] = x[:, :1]
    return y * 2


def through_a_view_of_the_input(x: Tensor) -> Tensor:
    view = x[:, :2]
    view[:, 1:] = 0.0
    return x * 2


def from_its_own_beginning(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :2] = y[:, :1]
    return y


def from_itself_transposed(x: Tensor) -> Tensor:
    y = x.clone()
    y[..., :3, :3] = y[..., :3, :3].transpose(-1, -2)
    return y


def into_the_input(x: Tensor) -> Tensor:
    x[:, 1:] = 0.0
    return x


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (overlapping, "share memory"),
        (seen_through_a_view, "other tensors look at"),
        (through_a_view, "other tensors look at"),
        (through_a_view_by_name, "other tensors look at"),
        (through_a_view_of_the_input, "other tensors look at"),
        (from_its_own_beginning, "share memory"),
        (from_itself_transposed, "share memory"),
        (into_the_input, "other tensors look at"),
    ],
)
def test_a_write_into_shared_memory_is_left_alone(function: Callable[[Tensor], Tensor], reason: str) -> None:
    plain, again, findings = both_ways(network_of(function), torch.randn(2, 4, 5, 6), Aim(13))
    assert [finding.replaced for finding in findings] == [False]
    assert reason in str(findings[0].reason)
    assert torch.equal(plain, again)


write = st.tuples(st.lists(part, min_size=1, max_size=3), st.booleans())


@settings(max_examples=60, deadline=None)
@given(writes=st.lists(write, min_size=2, max_size=6), touched=st.integers(0, 6), mutated=st.integers(0, 6))
def test_writes_one_after_the_other_leave_what_eager_leaves(
    writes: list[tuple[list[Any], bool]], touched: int, mutated: int
) -> None:
    def function(x: Tensor) -> Tensor:
        y = x.clone()
        for count, (index, ellipsis) in enumerate(writes):
            places = (..., *index) if ellipsis else tuple(index)
            value = count + x[places] if count % 3 else torch.full_like(x[places], count)
            y[places] = value
            if count == touched:
                y.mul_(2)
            if count == mutated:
                value += 1
        return y

    plain, again, _ = both_ways(network_of(function), torch.randn(2, 3, 4, 5), Aim(13))
    assert torch.equal(plain, again)


def test_tensors_without_a_storage_share_no_memory() -> None:
    sparse, dense = torch.eye(3).to_sparse(), torch.eye(3)
    assert not shares_memory(sparse, dense)
    assert shares_memory(sparse, sparse)
    assert shares_memory(dense[1:], [dense])


def test_a_tensor_inside_vmap_has_no_memory_but_its_own() -> None:
    found: list[bool] = []

    def row(x: Tensor) -> Tensor:
        found.extend((shares_memory(x, x), shares_memory(x, x + 1)))
        return x

    torch.vmap(row)(torch.eye(3))
    assert found == [True, False]


def changed_by_name_between(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1:] = x[:, :1]
    torch.relu_(input=y)
    y[:, :1] = 2.0
    return y


def test_a_change_between_two_writes_is_not_lost() -> None:
    plain, again, findings = both_ways(network_of(changed_by_name_between), torch.randn(2, 4, 5, 6), Aim(13))
    assert [finding.replaced for finding in findings] == [True, True]
    assert torch.equal(plain, again)


def in_eight_parts(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for place in range(8):
        y[:, place] = x[:, 7 - place] * place
    return y


def test_a_tensor_that_is_filled_in_parts_is_put_together_once() -> None:
    got = exported(network_of(in_eight_parts), torch.randn(2, 8, 5, 6))
    assert got.error < 1e-6
    assert [node.op_type for node in got.model.graph.node].count("Concat") == 1


def test_a_part_that_is_added_to_is_no_write_of_its_own() -> None:
    def function(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 1:] += x[:, :-1]
        return y

    got = exported(network_of(function), torch.randn(1, 4, 5, 6))
    assert got.findings == ()
    assert got.error < 1e-6


def test_a_view_that_is_gone_does_not_hinder() -> None:
    def function(x: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 1).clone().permute(0, 3, 1, 2)
        total = y[:, :2].sum()
        y[:, 1:] = x[:, :-1]
        return y + total

    (finding,) = proven(network_of(function), torch.randn(1, 4, 5, 6), Aim(13))
    assert finding.replaced
