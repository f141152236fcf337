"""Shuffle Attention: the order that channels leave in, and the variance that FP16 cannot hold."""

from __future__ import annotations

import pytest
import torch

from deploy_attn import create
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.rounding import rounded_from_typed
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import PrecisionPlan, plain_half_plan, plan_from_graph
from deploy_attn.export.ranges import tensor_ranges
from deploy_attn.export.typed import typed_from_plan
from tests.deploy_attn.catalogue_cases import small


@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize("groups", [1, 2, 3, 4], ids="{} groups".format)
def test_initial_gates_only_shuffle_and_scale(family: str, groups: int) -> None:
    reference = create("shuffle", channels=24, groups=groups).double().eval()
    x = torch.randn(2, 24, 3, 5, dtype=torch.float64)
    dealt = [channel for pair in zip(range(12), range(12, 24), strict=True) for channel in pair]
    with torch.inference_mode():
        left = reference.export_form((1, 24, 3, 5), family)(x)
    assert torch.allclose(left, x[:, dealt] * torch.sigmoid(torch.tensor(1.0).double()))


@pytest.mark.parametrize(("groups", "gathers"), [(4, 2), (3, 3)], ids=["even", "odd"])
def test_runs_of_an_even_number_of_groups_are_joined_in_order(groups: int, gathers: int) -> None:
    form = small("shuffle", 24, groups=groups).export_form((1, 24, 3, 5), "cpu").float()
    with torch.inference_mode():
        nodes = onnx_from_module(form, torch.zeros(1, 24, 3, 5), GraphRequest(17, 8)).graph.node
    operators = [node.op_type for node in nodes]
    assert operators.count("Gather") == gathers
    assert operators.count("Concat") == 1
    assert "Transpose" not in operators


@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_a_channel_without_variance_is_gated_by_the_shift(family: str) -> None:
    reference = small("shuffle", 16, groups=1)
    x = torch.full((1, 16, 1, 1), 3.0, dtype=torch.float64)
    bias = reference.get_parameter("gn.bias") * reference.get_parameter("sweight").flatten()
    gate = torch.sigmoid(bias + reference.get_parameter("sbias").flatten())
    with torch.inference_mode():
        for form in (reference, reference.export_form((1, 16, 1, 1), family)):
            assert torch.allclose(form(x).flatten()[1::2], 3 * gate)


def test_fp16_everywhere_is_finite_and_wrong_and_the_plan_is_right() -> None:
    torch.manual_seed(0)
    shape = (1, 32, 24, 24)
    reference = small("shuffle")
    x = 100 * torch.randn(shape)
    with torch.inference_mode():
        wanted = reference(x.double())
        graph = onnx_from_module(reference.export_form(shape, "gpu").float(), x, GraphRequest(13, 7))
    feed = {"input": x.numpy()}

    def error(plan: PrecisionPlan) -> float:
        rounded = rounded_from_typed(typed_from_plan(graph, plan))
        with OnnxRuntimeRunner(rounded.SerializeToString()) as run:
            got = torch.from_numpy(run.infer(feed)["output"])
        assert bool(got.isfinite().all())
        return float((got - wanted).norm() / wanted.norm())

    assert error(plain_half_plan(graph)) > 0.05
    assert error(plan_from_graph(graph, tensor_ranges(graph, [feed]))) < 1e-3
