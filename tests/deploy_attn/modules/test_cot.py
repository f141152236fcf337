"""CoT: what its weights are, and what its export form leaves out."""

from __future__ import annotations

import torch
from torch import nn

from deploy_attn import create
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module


def test_the_weights_of_a_channel_are_a_softmax_over_the_whole_map() -> None:
    reference = create("cot", channels=8).double().eval()
    nn.init.zeros_(reference.get_parameter("value_embed.1.weight"))
    nn.init.ones_(reference.get_parameter("value_embed.1.bias"))  # every value is 1
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    with torch.inference_mode():
        weights = reference(x) - reference.get_submodule("key_embed")(x)
    assert torch.allclose(weights.sum((2, 3)), torch.ones(2, 8, dtype=torch.float64))
    assert bool((weights > 0).all())


def test_the_bias_of_the_logits_changes_nothing() -> None:
    reference = create("cot", channels=8).double().eval()
    x = torch.randn(1, 8, 5, 6, dtype=torch.float64)
    with torch.inference_mode():
        before = reference(x)
        nn.init.normal_(reference.get_parameter("attention_embed.3.bias"), std=10)
        assert torch.allclose(reference(x), before, rtol=1e-12)


def test_the_logits_are_one_a_channel_without_a_concatenation() -> None:
    form = create("cot", channels=8, kernel_size=5).export_form((1, 8, 5, 6)).eval()
    with torch.inference_mode():
        graph = onnx_from_module(form, torch.zeros(1, 8, 5, 6), GraphRequest(13, 7)).graph
    outputs = {tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 4}
    assert max(outputs) == 8  # the source's last layer has 200
    assert "Concat" not in {node.op_type for node in graph.node}
