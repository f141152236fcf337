"""Global second-order pooling: what the map passes on its way to the covariance, and what is never built."""

from __future__ import annotations

import onnx
import pytest
import torch

from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from tests.deploy_attn.catalogue_cases import small


def test_what_is_negative_does_not_reach_the_gate_but_is_gated() -> None:
    form = small("gsop", 16)
    x = torch.randn(2, 16, 5, 6).double()
    lower = torch.where(x < 0, 3 * x, x)
    torch.testing.assert_close(form(lower) / lower, form(x) / x)
    assert (form(x)[x < 0] < 0).all()


@pytest.mark.parametrize("open_size", [False, True])
def test_the_product_is_the_covariance_itself_however_many_places_it_sums(open_size: bool) -> None:
    reference = small("gsop", 16)
    x = 3 * torch.randn(1, 16, 24, 20).double() + 20
    form = reference.export_form((1, 16, 24, 20), dynamic_size=open_size)
    given: list[torch.Tensor] = []
    form.get_submodule("rows").register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    form(x)
    reduced = torch.relu(reference.get_submodule("bn_for_DR")(reference.get_submodule("conv_for_DR")(torch.relu(x))))
    torch.testing.assert_close(given[0][0, :, :, 0], torch.cov(reduced[0].flatten(1), correction=0))


def test_no_matrix_of_places_by_places_is_built() -> None:
    form = small("gsop", 16).export_form((1, 16, 5, 7)).float().eval()
    graph = onnx.shape_inference.infer_shapes(onnx_from_module(form, torch.randn(1, 16, 5, 7), GraphRequest(17, 8)))
    shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.graph.value_info]
    constants = [list(tensor.dims) for tensor in graph.graph.initializer]
    assert [1, 35, 8] in shapes
    assert all(shape.count(35) < 2 for shape in shapes + constants)
