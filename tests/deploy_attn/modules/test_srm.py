"""Style-based recalibration: which deviation it is, and that a mean far from zero does not cost it its digits."""

from __future__ import annotations

import math

import pytest
import torch

import deploy_attn
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from tests.deploy_attn.catalogue_cases import small


def test_the_deviation_is_that_of_one_place_less_with_a_constant_under_the_root() -> None:
    form = deploy_attn.create("srm", channels=1).double().eval()
    form.load_state_dict({**form.state_dict(), "cfc": torch.tensor([[0.0, 1.0]])})
    x = torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    gate = 1 / (1 + math.exp(-math.sqrt(2 + 1e-5) / math.sqrt(1 + 1e-5)))
    torch.testing.assert_close(form(x) / x, torch.full_like(x, gate))


@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize("open_size", [False, True])
@pytest.mark.parametrize("sigmas", [-100.0, 100.0])
def test_a_far_mean_costs_no_digits_in_single_precision(family: str, open_size: bool, sigmas: float) -> None:
    x = torch.randn(1, 16, 20, 24, generator=torch.Generator().manual_seed(0)) + sigmas
    assert _error(x, family, open_size) < 2e-6  # mean(x^2) - mean(x)^2: 8e-5


@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_a_constant_map_has_the_root_of_the_constant(family: str) -> None:
    assert _error(torch.full((1, 16, 20, 24), 100.1), family, False) < 1e-6  # mean(x^2) - mean(x)^2: NaN


def _error(x: torch.Tensor, family: str, open_size: bool) -> float:
    """Of the exported form in float32, against the reference in float64."""
    reference = small("srm", 16)
    with torch.no_grad():
        reference.get_parameter("cfc")[:, 0] /= 100  # else every gate is fully open
    form = reference.export_form((1, *x.shape[1:]), family, open_size).float().eval()
    with torch.inference_mode():
        wanted = reference(x.double())
        graph = onnx_from_module(form, x, GraphRequest(17, 8, dynamic_size=open_size))
    with OnnxRuntimeRunner(graph.SerializeToString()) as run:
        got = torch.from_numpy(run.infer({"input": x.numpy()})["output"])
    return float((got - wanted).norm() / wanted.norm())
