"""Selective Kernel attention: what the number of branches changes, and what is never built."""

from __future__ import annotations

import onnx
import pytest
import torch

from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from tests.deploy_attn.catalogue_cases import small

SHAPE = (1, 8, 5, 6)


def _graph(kernel_sizes: tuple[int, ...]) -> onnx.ModelProto:
    form = small("sk", 8, kernel_sizes=kernel_sizes).export_form(SHAPE, "gpu").float()
    with torch.inference_mode():
        return onnx_from_module(form, torch.zeros(SHAPE), GraphRequest(13, 7))


def test_no_tensor_holds_all_branches() -> None:
    model = _graph((1, 3, 5, 7))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    assert max(len(value.type.tensor_type.shape.dim) for value in inferred) == 4
    assert "Concat" not in {node.op_type for node in model.graph.node}


def test_two_branches_need_no_softmax() -> None:
    operators = {node.op_type for node in _graph((3, 5)).graph.node}
    assert "Softmax" not in operators
    assert "Sigmoid" in operators


@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_one_branch_is_its_convolution(family: str) -> None:
    reference = small("sk", 8, kernel_sizes=(3,))
    x = torch.randn(2, *SHAPE[1:], dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(reference.export_form(SHAPE, family)(x), reference.get_submodule("convs.0")(x))


def test_a_kernel_larger_than_the_map_is_cropped_with_its_groups() -> None:
    form = small("sk", 8, kernel_sizes=(3, 9), groups=2).export_form((1, 8, 2, 4), "cpu")
    assert form.get_parameter("convs.0.weight").shape == (8, 4, 3, 3)
    assert form.get_parameter("convs.1.weight").shape == (8, 4, 3, 7)
