"""Rolls and shuffles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deploy_attn.export.functions import moving
from deploy_attn.export.functions.rule import Aim
from tests.export.functions.exports import exported, network_of, proven


@settings(max_examples=80, deadline=None)
@given(
    size=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.integers(-20, 20), st.integers(-4, 3)), min_size=1, max_size=3),
    flat=st.booleans(),
)
def test_every_form_equals_the_roll(size: list[int], steps: list[tuple[int, int]], flat: bool) -> None:
    x = torch.arange(float(torch.Size(size).numel())).reshape(size)
    shifts = tuple(shift for shift, _ in steps)[: 1 if flat else None]
    dims = () if flat else tuple(axis % len(size) for _, axis in steps)
    form = moving.roll(Aim(13), x, shifts, dims)
    around = flat or any(abs(shift) >= size[axis] for shift, axis in zip(shifts, dims))
    assert (form is not None) == around
    assert form is None or torch.equal(form, torch.roll(x, shifts, dims))


@pytest.mark.parametrize(
    ("shifts", "dims"), [(1, 2), ((3, -2), (2, 3)), (9, 2), (-9, -1), ((4, 16), (2, 3)), (3, None), (-77, None), (0, 1)]
)
def test_rolls_are_slices_and_concatenations(shifts: Any, dims: Any) -> None:
    got = exported(network_of(lambda x: x.roll(shifts, dims) * 2), torch.randn(2, 3, 4, 8))
    assert got.error < 1e-6
    assert got.operators <= {"Slice", "Concat", "Reshape", "Mul"}
    assert got.nano_errors == []


def test_a_roll_around_an_open_axis_is_left_alone_with_a_reason() -> None:
    (finding,) = proven(network_of(lambda x: x.roll(9, 2)), torch.randn(1, 2, 4, 4), Aim(13, open_size=True))
    assert "less than its extent" in str(finding.reason)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_channels_are_shuffled_as_by_torch(groups: int) -> None:
    got = exported(network_of(lambda x: nn.ChannelShuffle(groups)(x) * 2), torch.randn(1, 6, 4, 5), dynamic_batch=True)
    assert got.error < 1e-6
    assert [finding.replaced for finding in got.findings] == [True]


def test_an_empty_axis_rolls_to_itself() -> None:
    form = moving.roll(Aim(13), torch.zeros(2, 0), 3, 1)
    assert form is not None
    assert form.shape == (2, 0)
