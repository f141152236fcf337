"""Holds that every tensor a network returns is found and named, and that anything else is refused with a reason."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from deploy_attn.export.results import dropped_outputs, named_outputs, output_tensors
from deploy_attn.jetson.errors import BadRequest

Pair = namedtuple("Pair", ["low", "high"])
A, B, C = torch.zeros(1), torch.ones(2), torch.ones(3)


@dataclass
class _Record:
    logits: Tensor
    aux: object = None


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (A, ["output"]),
        ([A], ["output"]),
        ((A, B), ["output_0", "output_1"]),
        ((A, (B, [C])), ["output_0", "output_1_0", "output_1_1_0"]),
        ((A, None, B), ["output_0", "output_2"]),
        ({"logits": A, "aux": B}, ["logits", "aux"]),
        (OrderedDict(out=A, more=[B, C]), ["out", "more_0", "more_1"]),
        ((A, {"k": B}), ["output_0", "output_1_k"]),
        (Pair(A, (B, C)), ["low", "high_0", "high_1"]),
        (_Record(A, {"deep": B}), ["logits", "aux_deep"]),
        ({0: A, "0": B}, ["output_0", "output_0_2"]),
        ({"a b": A, "a/b": B}, ["a_b", "a_b_2"]),
        ({"input": A}, ["output_input"]),
        ([[A, B]], ["output_0", "output_1"]),
    ],
    ids=str,
)
def test_tensors_are_named_by_the_places_and_keys_that_lead_to_them(result: object, names: list[str]) -> None:
    named = named_outputs(result, ["input"])
    assert list(named) == names
    assert [tensor is wanted for tensor, wanted in zip(named.values(), (A, B, C))] == [True] * len(names)
    assert list(map(id, named.values())) == list(map(id, output_tensors(result)))


def test_a_name_that_is_freed_for_an_output_may_be_taken_itself() -> None:
    assert list(named_outputs({"x": A}, ["x", "output_x"])) == ["output_x_2"]


def test_what_is_none_is_dropped_and_named() -> None:
    assert dropped_outputs((A, None, {"aux": None})) == ["output_1", "output_2_aux"]
    assert dropped_outputs(A) == []


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "returns NoneType"),
        ((), "returns an empty tuple"),
        ({}, "returns an empty dict"),
        ((None, None), "returns tuple"),
        (3.0, "returns float; it must"),
        ((A, 3), "returns int as 'output_1'"),
        ({"a": A, "meta": {"size": (4, 5)}}, "returns int as 'meta_size_0'"),
        ({"a": "text"}, "returns str as 'a'"),
        (torch.zeros(2, dtype=torch.complex64), r"a tensor of torch\.complex64"),
        ([torch.eye(2).to_sparse()], "torch.sparse_coo as 'output'"),
    ],
    ids=repr,
)
def test_what_is_no_tensor_of_real_numbers_is_refused(result: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        output_tensors(result)
