"""EncNet: no residual tensor, no cancellation that shows, no subnormal weights on a CPU."""

from __future__ import annotations

import math
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from deploy_attn import create
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module


@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_no_tensor_holds_a_residual_for_each_place_and_codeword(family: str) -> None:
    form = create("encnet", channels=8, codes=5).export_form((1, 8, 6, 7), family).eval()
    with torch.inference_mode():
        model = onnx_from_module(form, torch.zeros(1, 8, 6, 7), GraphRequest(13, 7))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    sizes = [math.prod(d.dim_value for d in value.type.tensor_type.shape.dim) for value in inferred]
    assert max(sizes) == 8 * 6 * 7


@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_the_product_and_the_sum_of_the_weights_read_one_transposed_tensor(family: str) -> None:
    form = create("encnet", channels=8, codes=5).export_form((1, 8, 6, 7), family).eval()
    with torch.inference_mode():
        graph = onnx_from_module(form, torch.zeros(1, 8, 6, 7), GraphRequest(13, 7)).graph
    of_places, of_weights = (node for node in graph.node if node.op_type == "Transpose")
    assert [node.op_type for node in graph.node if of_places.output[0] in node.input] == ["MatMul"]
    assert sorted(node.op_type for node in graph.node if of_weights.output[0] in node.input) == ["MatMul", "ReduceSum"]


@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize(("centre", "spread"), [(20.0, 1.0), (0.0, 100.0)], ids=["far-codewords", "far-features"])
def test_expanded_distances_keep_their_precision(family: str, centre: float, spread: float) -> None:
    torch.manual_seed(0)
    reference = create("encnet", channels=32, codes=16).double().eval()
    encoding: Any = reference.get_submodule("encoding")
    nn.init.constant_(encoding[1].bias, centre)
    x = spread * torch.randn(1, 32, 16, 16)
    with torch.inference_mode():
        features = encoding[:3](x.double())
        if centre:  # the codewords lie among features of 20 +- 1
            encoding[3].codewords.copy_(features.flatten(2)[0].T[::16])
        encoding[3].scale.fill_(-0.5)
        encoding[4].running_var.copy_(encoding[3](features).var((0, 2)))  # so that the gate is not saturated
        wanted = reference(x.double())
        got = reference.export_form((1, 32, 16, 16), family).float()(x).double()
    assert float((got - wanted).norm() / wanted.norm()) < 5e-7


def test_weights_on_a_cpu_are_never_subnormal() -> None:
    form: Any = create("encnet", channels=4, codes=2).export_form((1, 4, 3, 3)).eval()
    logits = torch.tensor([[[0.0, -95.0]]])
    smallest_normal = torch.finfo(torch.float32).tiny
    assert 0 < float(logits.softmax(2).min()) < smallest_normal
    assert float(form._weights(logits).min()) >= smallest_normal


def test_a_checkpoint_with_the_training_head_loads_and_gives_the_same_map() -> None:
    torch.manual_seed(0)
    trained = create("encnet", channels=8, se_loss=True, classes=3).eval()
    without = create("encnet", channels=8).eval()
    assert trained.state_dict()["selayer.weight"].shape == (3, 8)
    without.load_state_dict({k: v for k, v in trained.state_dict().items() if not k.startswith("selayer")}, strict=True)
    x = torch.randn(1, 8, 3, 4)
    with torch.inference_mode():
        assert torch.equal(trained(x), without(x))
