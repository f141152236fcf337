"""Holds that a size which a network bakes into its graph is found, with the line and the node."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from deploy_attn.export.inputs import larger_map, noise_inputs, twice_the_batch
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.open_axes import check_open_axes, frozen_lines
from deploy_attn.export.reference import reference_cases
from deploy_attn.jetson.errors import BadRequest
from tests.export.networks import Returns

X = noise_inputs((2, 3, 4, 6), 0, severe=False)["normal"]


def _check(function: Callable[[Tensor], object]) -> None:
    network = Returns(function)
    cases = reference_cases(network, {"larger_batch": twice_the_batch(X), "larger_map": larger_map(X, 4, 6)})
    with torch.inference_mode(), frozen_lines() as frozen:
        request = GraphRequest(17, 8, dynamic_batch=True, dynamic_size=True)
        model = onnx_from_module(network, torch.from_numpy(X), request)
    check_open_axes(model, cases, frozen)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x.flatten(2).softmax(2), id="flatten"),
        pytest.param(lambda x: x.reshape(x.shape[0], 3, -1), id="reshape by a shape"),
        pytest.param(lambda x: x * 2 if x.shape[2] > 0 else x, id="a branch that every size takes"),
    ],
)
def test_a_graph_that_takes_every_extent_passes(function: Callable[[Tensor], object]) -> None:
    _check(function)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        pytest.param(
            lambda x: x.reshape(int(x.shape[0]), 3, x.shape[2] * x.shape[3]) * 2,
            r"fails on 4x3x4x6 at node /Reshape|it gives output as",
            id="a reshape",
        ),
        pytest.param(
            lambda x: x * torch.linspace(0, 1, int(x.shape[-1])), r"fails on 2x3x8x12 at node /Mul", id="a table"
        ),
        pytest.param(
            lambda x: torch.zeros(int(x.shape[0]), 3) + x.mean() * 0,
            r"it gives output as \(2, 3\) for 4x3x4x6, the network \(4, 3\)",
            id="another shape",
        ),
    ],
)
def test_a_size_that_is_baked_in_is_refused_with_its_line(function: Callable[[Tensor], object], said: str) -> None:
    with pytest.raises(BadRequest, match=said) as caught:
        _check(function)
    assert "test_open_axes.py:" in str(caught.value)
    assert "export without --dynamic-batch and --dynamic-size" in str(caught.value)


def test_a_line_that_froze_often_is_named_once() -> None:
    def twice(x: Tensor) -> Tensor:
        for _ in range(3):
            x = x * torch.linspace(0, 1, int(x.shape[-1]))
        return x

    with pytest.raises(BadRequest) as caught:
        _check(twice)
    assert str(caught.value).count("test_open_axes.py:") == 1


def test_other_warnings_of_a_trace_go_on() -> None:
    def warns(x: Tensor) -> Tensor:
        warnings.warn("look here", UserWarning, stacklevel=1)
        return x * int(x.shape[0])

    with pytest.warns(UserWarning, match="look here"), torch.inference_mode(), frozen_lines() as frozen:
        onnx_from_module(Returns(warns), torch.from_numpy(np.ones((1, 2), np.float32)), GraphRequest(17, 8))
    assert all("test_open_axes.py:" in line for line in frozen)
    assert frozen
