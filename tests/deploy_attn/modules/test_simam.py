"""SimAM: a failure of plain FP16 that leaves finite numbers, and where a norm stands for the means."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

import deploy_attn
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.rounding import rounded_from_typed
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import plain_half_plan, plan_from_graph
from deploy_attn.export.ranges import tensor_ranges
from deploy_attn.export.typed import typed_from_plan

HALF = 0.5  # the energy of a place at the mean, and of every place where the variance is infinite


def test_the_variance_is_that_of_one_place_less() -> None:
    x = torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    gate = deploy_attn.create("simam", e_lambda=0.5)(x) / x
    torch.testing.assert_close(gate, torch.sigmoid(torch.full_like(x, 1 / (4 * (2 + 0.5)) + HALF)))


@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_plain_half_opens_every_gate_to_0_622_and_says_nothing_where_the_plan_is_right(family: str) -> None:
    x = 6 * torch.randn(1, 4, 80, 80, generator=torch.Generator().manual_seed(0))
    reference = deploy_attn.create("simam").eval()
    wanted = reference(x.double())
    naive = _graph(reference, x)
    stuck = _run(rounded_from_typed(typed_from_plan(naive, plain_half_plan(naive))), x)
    assert torch.isfinite(stuck).all()
    torch.testing.assert_close(stuck, x.double() * torch.sigmoid(torch.tensor(HALF)), rtol=2e-3, atol=0)
    assert _apart(stuck, wanted) > 0.1
    graph = _graph(reference.export_form((1, 4, 80, 80), family).eval(), x)
    plan = plan_from_graph(graph, tensor_ranges(graph, [{"input": x.numpy()}]))
    assert _apart(_run(rounded_from_typed(typed_from_plan(graph, plan)), x), wanted) < 1e-3


@pytest.mark.parametrize(("family", "open_size", "norms"), [("cpu", False, 1), ("cpu", True, 0), ("gpu", False, 0)])
def test_only_a_cpu_that_knows_the_size_normalises(family: str, open_size: bool, norms: int) -> None:
    form = deploy_attn.create("simam").export_form((1, 8, 5, 7), family, open_size).eval()
    with torch.inference_mode():
        graph = onnx_from_module(form, torch.zeros(1, 8, 5, 7), GraphRequest(17, 8, dynamic_size=open_size)).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("InstanceNormalization") == norms
    assert operators.count("ReduceMean") == 2 * (1 - norms)


def _graph(module: torch.nn.Module, x: torch.Tensor) -> onnx.ModelProto:
    with torch.inference_mode():
        return onnx_from_module(module, x, GraphRequest(17, 8))


def _run(model: onnx.ModelProto, x: torch.Tensor) -> torch.Tensor:
    with OnnxRuntimeRunner(model.SerializeToString()) as run:
        return torch.from_numpy(run.infer({"input": x.numpy()})["output"].astype(np.float64))


def _apart(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())
