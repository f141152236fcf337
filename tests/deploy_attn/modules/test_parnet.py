"""ParNet: its gated branch, and one convolution for two."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from deploy_attn import create
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module


def test_the_gated_branch_has_no_norm() -> None:
    reference = create("parnet", channels=6).double().eval()
    for name, parameter in reference.named_parameters():
        if name.startswith(("conv1x1.1", "conv3x3.1")):
            nn.init.zeros_(parameter)  # which leaves the gated branch alone
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    with torch.inference_mode():
        gated = functional.silu(x * reference.get_submodule("sse")(x))
        assert torch.allclose(reference(x), gated, rtol=1e-12)


def test_both_convolutions_and_their_norms_become_one() -> None:
    form = create("parnet", channels=6).export_form((1, 6, 4, 5)).eval()
    with torch.inference_mode():
        graph = onnx_from_module(form, torch.zeros(1, 6, 4, 5), GraphRequest(13, 7)).graph
    kernels = sorted(tuple(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 4)
    assert kernels == [(6, 6, 1, 1), (6, 6, 3, 3)]  # the gate's and the merged one
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
