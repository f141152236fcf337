"""Holds the promise of --fp16: where a network in plain half precision overflows, its precision plan does not."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import deploy_attn
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.rounding import rounded_from_typed
from deploy_attn.export.graph_view import GraphView
from deploy_attn.export.inputs import noise_inputs
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import PrecisionPlan, plan_from_graph
from deploy_attn.export.ranges import tensor_ranges
from deploy_attn.export.typed import typed_from_plan
from deploy_attn.modules.base import ReferenceForm, Shape

Array = np.ndarray[Any, Any]

SHAPE: Shape = (1, 16, 56, 56)
SEED = 0  # weights whose descriptor exceeds 65504 on the far mean; asserted below


@pytest.fixture(scope="module")
def s2() -> ReferenceForm:
    torch.manual_seed(SEED)
    return deploy_attn.create("s2", channels=SHAPE[1]).eval()


@pytest.fixture(scope="module")
def normal() -> Array:
    return noise_inputs(SHAPE, SEED, severe=False)["normal"]


@pytest.fixture(scope="module")
def far(normal: Array) -> Array:
    """Noise whose mean is 20 sigma in every channel."""
    shifted: Array = normal + np.float32(20)
    return shifted


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def graph(request: pytest.FixtureRequest, s2: ReferenceForm, normal: Array) -> onnx.ModelProto:
    form = s2.export_form(SHAPE, request.param).eval()
    with torch.inference_mode():
        return onnx_from_module(form, torch.from_numpy(normal), GraphRequest(17, 8))


@pytest.fixture(scope="module")
def wanted(s2: ReferenceForm, far: Array) -> Array:
    """What the reference computes of the far mean, in float64."""
    with torch.inference_mode():
        output: Array = copy.deepcopy(s2).double()(torch.from_numpy(far).double()).numpy()
    return output


def _run(model: onnx.ModelProto, x: Array) -> Array:
    with OnnxRuntimeRunner(model.SerializeToString()) as run:
        return run.infer({"input": x})["output"]


def _plain_half(graph: onnx.ModelProto) -> PrecisionPlan:
    """What `model.half()` does: FP16 wherever the operator has a form of it."""
    view = GraphView(graph)
    plan = plan_from_graph(graph, {})
    nodes = {node.name: node for node in graph.graph.node}
    return replace(
        plan,
        nodes=tuple(
            replace(node, precision="fp16" if view.can_be_half(nodes[node.node]) else "fp32") for node in plan.nodes
        ),
    )


def _apart(got: Array, wanted: Array) -> float:
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def test_plain_half_overflows_where_the_mean_is_far_from_zero(
    graph: onnx.ModelProto, far: Array, wanted: Array
) -> None:
    assert max(tensor_ranges(graph, [{"input": far}]).values()) > 65504
    plain = rounded_from_typed(typed_from_plan(graph, _plain_half(graph)))
    assert np.isfinite(wanted).all()
    assert not np.isfinite(_run(plain, far)).any()


def test_plain_half_is_fine_on_normal_noise_so_that_only_the_mean_is_to_blame(
    graph: onnx.ModelProto, normal: Array
) -> None:
    plain = rounded_from_typed(typed_from_plan(graph, _plain_half(graph)))
    assert _apart(_run(plain, normal), _run(graph, normal)) < 1e-2


@pytest.mark.parametrize("measured_on", ["normal noise only", "the far mean too"])
@pytest.mark.parametrize("bracket", ["optimistic", "pessimistic"])
def test_the_plan_stays_within_a_hundredth_of_float64(
    graph: onnx.ModelProto, normal: Array, far: Array, wanted: Array, measured_on: str, bracket: str
) -> None:
    seen = [normal] if measured_on == "normal noise only" else [normal, far]
    plan = plan_from_graph(graph, tensor_ranges(graph, [{"input": x} for x in seen]))
    assert plan.count("fp16") >= 10
    typed = typed_from_plan(graph, plan)
    onnx.checker.check_model(typed, full_check=True)
    got = _run(typed if bracket == "optimistic" else rounded_from_typed(typed), far)
    assert np.isfinite(got).all()
    assert _apart(got, wanted) <= 1e-2


def test_the_plan_names_the_sum_over_the_map_as_the_reason(graph: onnx.ModelProto, normal: Array) -> None:
    plan = plan_from_graph(graph, tensor_ranges(graph, [{"input": normal}]))
    reasons = {node.op_type: node.reason for node in plan.nodes if node.precision == "fp32"}
    assert "H x W" in reasons["ReduceSum"]
    assert "grows with the resolution" in reasons["Gemm"]
    assert {node.precision for node in plan.nodes if node.op_type == "Conv"} == {"fp16"}
