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
from deploy_attn.engines.fused.library import SYSTEMS
from deploy_attn.engines.fused.session import fused_session
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


def apart(reference: ReferenceForm, x: torch.Tensor) -> float:
    """RMS relative distance of the operator from the module in float64."""
    session = fused_session(fused_graph(reference, x.shape[1]).SerializeToString())
    (found,) = session.run(None, {"input": x.float().numpy()})
    with torch.inference_mode():
        expected = reference.double()(x.float().double()).numpy()
    reference.float()
    return compare(found, expected).rms_relative


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
        session = fused_session(fused_graph(module(name), CHANNELS).SerializeToString())
        assert not session.run(None, {"input": x.numpy()})[0].any()
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


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf"), 1e30])
def test_what_is_not_finite_is_never_hidden_and_stays_within_its_image(name: str, wrong: float) -> None:
    reference = module(name)
    x = torch.randn(2, CHANNELS, 6, 7)
    x[0, 3, 2, 5] = wrong
    session = fused_session(fused_graph(reference, CHANNELS).SerializeToString())
    (found,) = session.run(None, {"input": x.numpy()})
    with torch.inference_mode():
        expected = reference(x).numpy()
    assert np.isnan(found[np.isnan(expected)]).all()
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-5)


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
        (np.ones((1, CHANNELS + 1, 4, 4), np.float32), "input|nvalid"),
    ],
)
def test_a_map_that_is_none_is_an_error_and_not_a_crash(x: np.ndarray[Any, Any], message: str) -> None:
    session = fused_session(fused_graph(module("srm"), CHANNELS).SerializeToString())
    with pytest.raises(Exception, match=message):
        session.run(None, {"input": x})


@pytest.mark.parametrize("name", SYSTEMS)
def test_parameters_of_another_module_are_an_error_and_not_a_crash(name: str) -> None:
    graph = fused_graph(module(name), CHANNELS)
    whole = numpy_helper.to_array(graph.graph.initializer[0])
    graph.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.append(whole, whole)[: len(whole) + 1], "parameters")
    )
    with pytest.raises(Exception, match="parameters of a fused operator"):
        fused_session(graph.SerializeToString()).run(None, {"input": np.ones((1, CHANNELS, 4, 4), np.float32)})


def test_an_empty_batch_is_an_empty_answer() -> None:
    session = fused_session(fused_graph(module("cbam"), CHANNELS).SerializeToString())
    (found,) = session.run(None, {"input": np.ones((0, CHANNELS, 4, 4), np.float32)})
    assert found.shape == (0, CHANNELS, 4, 4)
