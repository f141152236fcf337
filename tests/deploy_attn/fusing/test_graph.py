"""Fused operators against the modules in float64, and what has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from onnx import numpy_helper

from deploy_attn import create
from deploy_attn.engines.fused.engine import FusedRunner
from deploy_attn.engines.fused.library import SYSTEMS
from deploy_attn.fusing.graph import fused_graph
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.metrics import compare
from deploy_attn.modules.base import ReferenceForm
from deploy_attn.modules.disturb import disturb_constants

APART = 1e-5
CHANNELS = 16


def module(name: str, channels: int = CHANNELS, **options: Any) -> ReferenceForm:
    """A seeded module without a branch that is switched off."""
    torch.manual_seed(0)
    made = create(name, channels=channels, **options).eval()
    disturb_constants(made)
    return made


def fused(reference: ReferenceForm, x: torch.Tensor) -> np.ndarray[Any, Any]:
    """What the operator computes."""
    with FusedRunner(fused_graph(reference, x.shape[1]).SerializeToString()) as runner:
        return runner.infer({"input": x.float().numpy()})["output"]


def in_double(reference: ReferenceForm, x: torch.Tensor) -> np.ndarray[Any, Any]:
    """What the module computes in float64."""
    with torch.inference_mode():
        expected: np.ndarray[Any, Any] = reference.double()(x.float().double()).numpy()
    reference.float()
    return expected


def apart(reference: ReferenceForm, x: torch.Tensor) -> float:
    """RMS relative distance of the operator from the module in float64."""
    return compare(fused(reference, x), in_double(reference, x)).rms_relative


@pytest.mark.parametrize("shape", [(1, 9, 11), (3, 5, 4), (1, 2, 40), (2, 33, 2)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cbam", {}),
        ("cbam", {"reduction": 1}),
        ("cbam", {"reduction": 5}),
        ("gct", {"epsilon": 1e-2}),
        ("shuffle", {"groups": 4}),
        ("shuffle", {"groups": 1}),
        ("simam", {"e_lambda": 0.5}),
        ("srm", {}),
        ("triplet", {}),
    ],
)
def test_an_operator_computes_its_module(name: str, options: dict[str, Any], shape: tuple[int, int, int]) -> None:
    batch, height, width = shape
    x = torch.randn(batch, CHANNELS, height, width)
    assert apart(module(name, **options), x) < APART


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * 100,
        lambda x: x + 20,
        lambda x: -x.abs(),
        lambda x: torch.zeros_like(x),
        lambda x: x * 1e-6,
    ],
    ids=["large", "far from zero", "negative", "zero", "tiny"],
)
def test_an_operator_holds_for_other_inputs(name: str, change: Any) -> None:
    x = change(torch.randn(1, CHANNELS, 7, 7))
    if not x.any():
        assert not fused(module(name), x).any()
    else:
        assert apart(module(name), x) < APART


@given(
    st.sampled_from(SYSTEMS),
    st.integers(1, 2),
    st.sampled_from([16, 32, 48]),
    st.integers(1, 37),
    st.integers(2, 37),
)
@examples(max_examples=40)
def test_any_size_agrees(name: str, batch: int, channels: int, height: int, width: int) -> None:
    assert apart(module(name, channels), torch.randn(batch, channels, height, width)) < APART


def changed(place: tuple[int | slice, ...], value: float) -> torch.Tensor:
    """Two images of noise, of which one has the value in a place."""
    x = torch.randn(2, CHANNELS, 6, 7)
    x[0][place] = value
    return x


ALL = slice(None)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_never_hidden_and_stays_within_its_image(name: str, wrong: float) -> None:
    reference = module(name)
    x = changed((3, 2, 5), wrong)
    found = fused(reference, x)
    with torch.inference_mode():
        expected = reference(x).numpy()
    assert np.isnan(found[~np.isfinite(expected)]).all()
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((3, 2, 5), 1e19),
        ((3, 2, 5), 1.5e38),
        ((3, 2, 5), -1.5e38),
        ((3, ALL, ALL), 1e36),
        ((ALL, 2, 5), 1e37),
        ((ALL, ALL, ALL), 1e34),
        ((ALL, ALL, ALL), 1.5e38),
    ],
    ids=["one 1e19", "one", "one negative", "a channel", "a place", "all 1e34", "all"],
)
def test_a_finite_map_that_sums_of_floats_cannot_hold_is_computed_all_the_same(
    name: str, place: tuple[int | slice, ...], value: float
) -> None:
    reference = module(name)
    x = changed(place, value)
    x[0] *= 1 + 0.1 * torch.rand(CHANNELS, 6, 7)  # a map without variance says nothing of one
    found, expected = fused(reference, x), in_double(reference, x)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5 * np.abs(x[0].numpy()).max())
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e30, 1e36, 3e37])
@pytest.mark.parametrize("name", SYSTEMS)
def test_noise_of_any_size_is_as_near_as_small_noise(name: str, scale: float) -> None:
    x = torch.randn(1, CHANNELS, 6, 7) * scale
    found, expected = fused(module(name), x) / scale, in_double(module(name), x) / scale
    np.testing.assert_allclose(found, expected, atol=APART)


def cbam_of(hidden: int, reduce: list[float], expand: list[list[float]]) -> Any:
    """A module whose channel gate has these weights for its first channels, and zero for the rest."""
    made: Any = module("cbam", reduction=CHANNELS // hidden)
    first, second, _ = made.parameters()
    with torch.no_grad():
        first.zero_()
        second.zero_()
        first.reshape(hidden, CHANNELS)[:, : len(reduce)] = torch.tensor(reduce)
        second.reshape(CHANNELS, hidden)[: len(expand)] = torch.tensor(expand)
    return made


def test_means_beyond_float_that_cancel_in_the_gate_of_channels_are_not_hidden() -> None:
    x = torch.randn(1, CHANNELS, 6, 7)
    x[0, 0], x[0, 1], x[0, 1, 0, 0] = 1e37, -1.1e37, -0.5e37
    reference = cbam_of(1, [-1.0, -1.0], [[-1.0], [-1.0], [1.0]])
    np.testing.assert_allclose(fused(reference, x), in_double(reference, x), rtol=1e-4, atol=1e32)


def test_a_gate_of_channels_beyond_float_is_not_hidden() -> None:
    x = torch.randn(1, CHANNELS, 6, 7)
    x[0, :3] = 1e36
    reference = cbam_of(2, [1.0], [[1e3, -0.9e3], [-1e3, 0.9e3], [0.9e3, -1e3]])
    np.testing.assert_allclose(fused(reference, x), in_double(reference, x), rtol=1e-4, atol=1e32)


@pytest.mark.parametrize(("name", "place"), [("cbam", 0), ("triplet", 0), ("triplet", 1), ("triplet", 2)])
def test_a_convolution_beyond_float_is_not_hidden(name: str, place: int) -> None:
    reference = module(name)
    kernels = [weights for weights in reference.parameters() if weights.shape[-1:] == (7,)]
    with torch.no_grad():
        kernels[place].mul_(1e4)
    x = torch.randn(1, CHANNELS, 6, 7) * 1e36
    np.testing.assert_allclose(fused(reference, x) / 1e36, in_double(reference, x) / 1e36, atol=APART)


def test_a_map_that_fills_more_than_a_stack_is_served() -> None:
    assert apart(module("triplet", 2), torch.randn(1, 2, 900, 900)) < APART


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cbam", {"kernel_size": 3}, "a kernel of 7x7, and this module one of 3x3"),
        ("gct", {"mode": "l1"}, "mode=l2, and this module mode=l1"),
        ("triplet", {"no_spatial": True}, "no_spatial=False, and this module no_spatial=True"),
        ("se", {}, "no fused operator for se"),
    ],
)
def test_what_has_no_operator_is_refused_with_what_does(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        fused_graph(module(name, **options), CHANNELS)


def test_a_module_of_somebody_else_is_refused() -> None:
    with pytest.raises(BadRequest, match="no fused operator for Linear"):
        fused_graph(torch.nn.Linear(2, 2), 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((1, CHANNELS, 1, 1), np.float32), "more than 1x1"),
        (np.ones((1, CHANNELS + 1, 4, 4), np.float32), "'input' takes float32 of shape"),
    ],
)
def test_a_map_that_is_none_is_an_error_and_not_a_crash(x: np.ndarray[Any, Any], message: str) -> None:
    with (
        pytest.raises(Exception, match=message),
        FusedRunner(fused_graph(module("srm"), CHANNELS).SerializeToString()) as runner,
    ):
        runner.infer({"input": x})


@pytest.mark.parametrize("name", SYSTEMS)
def test_parameters_of_another_module_are_an_error_and_not_a_crash(name: str) -> None:
    graph = fused_graph(module(name), CHANNELS)
    whole = numpy_helper.to_array(graph.graph.initializer[0])
    graph.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.append(whole, whole)[: len(whole) + 1], "parameters")
    )
    wrong = pytest.raises(Exception, match="parameters of a fused operator")
    with wrong, FusedRunner(graph.SerializeToString()) as runner:
        runner.infer({"input": np.ones((1, CHANNELS, 4, 4), np.float32)})


def test_an_empty_batch_is_an_empty_answer() -> None:
    assert fused(module("cbam"), torch.ones(0, CHANNELS, 4, 4)).shape == (0, CHANNELS, 4, 4)
