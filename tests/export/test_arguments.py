"""Holds that calls are kept whole, however arguments nest, and that every tensor among them has a name."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy_attn.export.arguments import Arguments, Call, parts_of, tensors_in, unused
from deploy_attn.jetson.errors import BadRequest
from tests.export.networks import Returns

Pair = namedtuple("Pair", ["left", "right"])


@dataclass(frozen=True)
class _Record:
    image: Tensor
    size: int
    extra: object = None


def _x(value: float = 0.0) -> Tensor:
    return torch.full((1, 2), value)


def _network(forward: Callable[..., object]) -> nn.Module:
    network = Returns(lambda x: x)
    network.forward = forward  # type: ignore[method-assign]
    return network


NESTS: list[Any] = [
    (_x(1), [_x(2), (_x(3),)], {"a": _x(4), "b": [None, 9, _x(5)]}),
    (Pair(_x(1), [_x(2)]), "text"),
    (_Record(_x(1), 3, [_x(2)]), _x(3)),
]


@pytest.mark.parametrize("nest", NESTS, ids=["containers", "named tuple", "data class"])
def test_a_change_of_every_tensor_keeps_the_nest(nest: Any) -> None:
    arguments = Arguments(nest, {"more": _x(7)})
    changed = arguments.with_values(_x(float(index)) for index in range(20))
    assert [float(tensor[0, 0]) for tensor in changed.tensors] == [float(i) for i in range(len(arguments.tensors))]
    for before, after in zip(nest, changed.positional):
        assert type(after) is type(before)
    assert [float(tensor[0, 0]) for tensor in tensors_in(nest)] == [
        float(i + 1) for i in range(len(changed.tensors) - 1)
    ]


def test_a_network_that_writes_into_its_argument_does_not_write_into_the_callers() -> None:
    x = _x(1)
    Arguments.of({"x": [x]}).call(_network(lambda x: x[0].mul_(2)))
    assert float(x[0, 0]) == 1


def test_real_numbers_change_their_type_and_others_stay() -> None:
    changed = Arguments.of((_x().half(), torch.tensor([1]), torch.tensor([True]))).as_type(torch.float64)
    assert [tensor.dtype for tensor in changed.tensors] == [torch.float64, torch.int64, torch.bool]


@pytest.mark.parametrize(
    ("forward", "arguments", "names"),
    [
        (lambda x: x, Arguments((_x(),), {}), ["input"]),
        (lambda x: x, Arguments((), {"x": _x()}), ["x"]),
        (lambda x, mask=None: x, Arguments((_x(),), {}), ["input"]),
        (lambda x, mask=None: x, Arguments((_x(), _x()), {}), ["x", "mask"]),
        (lambda x, a=1, *, mask: x, Arguments((_x(),), {"mask": _x()}), ["x", "mask"]),
        (lambda x, a=None, b=None: x, Arguments((_x(),), {"b": _x()}), ["x", "b"]),
        (lambda *xs, **more: xs, Arguments((_x(), _x()), {"k": _x()}), ["xs_0", "xs_1", "k"]),
        (lambda pair: pair, Arguments(((_x(), {"k v": _x()}),), {}), ["pair_0", "pair_1_k_v"]),
        (lambda a_0, a: a, Arguments((_x(), [_x()]), {}), ["a_0", "a_0_2"]),
    ],
)
def test_tensors_are_named_as_forward_names_them(
    forward: Callable[..., object], arguments: Arguments, names: list[str]
) -> None:
    call = Call.of(_network(forward), arguments)
    assert list(call.names) == names
    feeds = {name: np.full((1, 2), index, np.float32) for index, name in enumerate(names)}
    assert [float(tensor[0, 0]) for tensor in call.arguments(feeds).tensors] == list(range(len(names)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (Arguments((_x(),), {}), r"takes \(x, mask\), and was given 1 by place: missing a required argument: 'mask'"),
        (Arguments((_x(), _x(), _x()), {}), "given 3 by place: too many positional arguments"),
        (Arguments((_x(),), {"msk": _x()}), "'msk' by name"),
        (Arguments((_x(),), {"x": _x(), "mask": _x()}), "multiple values for argument 'x'"),
    ],
)
def test_a_call_that_forward_does_not_take_is_refused(arguments: Arguments, said: str) -> None:
    def forward(x: Tensor, mask: Tensor) -> Tensor:
        return x * mask

    network = _network(lambda x, mask: x)
    with pytest.raises(BadRequest, match=said):
        Call.of(network, arguments)


def test_a_call_without_a_tensor_is_refused() -> None:
    with pytest.raises(BadRequest, match="there is no tensor in this dict"):
        Arguments.of({"x": 3})


def test_names_are_plain_and_taken_once() -> None:
    assert unused("a b/ü", []) == "a_b__"
    assert unused("", []) == "_"
    assert unused("x", ["x", "x_2"]) == "x_3"


def test_names_are_in_the_order_of_the_call_not_of_forward() -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor, mask: Tensor) -> Tensor:
            return image * mask

    call = Call.of(Two(), Arguments((), {"mask": torch.zeros(1), "image": torch.ones(2)}))
    assert call.names == ("mask", "image")


def test_arrays_of_a_case_are_copied_into_its_call() -> None:
    array = np.zeros((1, 2), np.float32)
    Call.of(_network(lambda x: x), _x()).arguments({"input": array}).tensors[0].add_(1)
    assert not array.any()


def test_a_forward_that_shows_no_signature_is_called_by_places() -> None:
    assert Call.of(_network(min), Arguments((_x(), _x()), {"key": _x()})).names == ("input_0", "input_1", "key")


def test_a_class_is_no_nest() -> None:
    assert parts_of(_Record) is None
