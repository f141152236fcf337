"""A call is known by its arguments' names, and told from others by its text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from deploy_attn.export.functions.rule import Aim, FunctionCall, Rule, pair

X = torch.zeros(2, 3)


def pooled(aim: Aim, x: Tensor, size: Any = None, mode: Any = None) -> tuple[Any, Any]:
    return size, mode


RULE = Rule(pooled, "size mode")


def call_of(*args: Any, **kwargs: Any) -> FunctionCall:
    call = RULE.call_of(args, kwargs)
    assert call is not None
    return call


def test_arguments_have_names_by_whichever_way_they_came() -> None:
    for call in (call_of(X, 4, "area"), call_of(X, 4, mode="area"), call_of(input=X, mode="area", size=4)):
        assert call.first is X
        assert call.settings == {"size": 4, "mode": "area"}
        assert RULE.answer(Aim(13), call) == (4, "area")


@pytest.mark.parametrize(("args", "kwargs"), [((X, 4, "area", 1), {}), ((X,), {"out": X}), ((X, 4), {"other": 1})])
def test_a_call_with_other_arguments_is_none(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert RULE.call_of(args, kwargs) is None


def test_what_was_one_tensor_stays_one() -> None:
    other = torch.ones(3)
    call = call_of(X, [X, other], mode=X)
    assert [id(tensor) for tensor in call.tensors] == [id(X), id(other)]
    new = (torch.full((2, 3), 2.0), torch.full((3,), 3.0))
    changed = call.with_tensors(new)
    assert changed.first is new[0]
    assert changed.args[1][0] is changed.kwargs["mode"] is changed.settings["mode"] is new[0]
    assert changed.settings["size"][1] is new[1]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "pooled(2x3)"),
        ({"mode": None}, "pooled(2x3)"),
        ({"size": 4, "mode": "area"}, "pooled(2x3, size=4, mode='area')"),
        ({"size": (4, None, True)}, "pooled(2x3, size=(4, None, True))"),
        ({"size": [slice(1, None, 2), slice(None, 3)]}, "pooled(2x3, size=(1::2, :3:))"),
        ({"size": torch.tensor(4)}, "pooled(2x3, size=4)"),
        ({"size": torch.tensor(4.5)}, "pooled(2x3, size=scalar)"),
        ({"size": torch.tensor(4.5 + 1j)}, "pooled(2x3, size=scalar)"),
        ({"size": torch.zeros(4, 5, dtype=torch.bool)}, "pooled(2x3, size=4x5:bool)"),
        ({"size": torch.zeros(4, 5, dtype=torch.float64)}, "pooled(2x3, size=4x5)"),
    ],
)
def test_calls_that_differ_in_shapes_or_settings_differ_in_their_text(settings: dict[str, Any], text: str) -> None:
    assert RULE.described(call_of(X, **settings)) == text


@pytest.mark.parametrize(("value", "both"), [(3, (3, 3)), ((3,), (3, 3)), ([3, 4], (3, 4)), (None, (None, None))])
def test_a_pair_is_two_values_or_one_twice(value: Any, both: tuple[Any, Any]) -> None:
    assert pair(value) == both
