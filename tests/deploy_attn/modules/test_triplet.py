"""Triplet Attention: which branch is which, and that only planes are turned."""

from __future__ import annotations

import math

import onnx
import pytest
import torch
from torch import nn

from deploy_attn import create
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from tests.deploy_attn.catalogue_cases import small

SHAPE = (1, 12, 9, 10)


@pytest.mark.parametrize(("branch", "axis"), [("hw", 1), ("cw", 2), ("hc", 3)])
@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_a_branch_is_gated_alike_along_the_axis_that_it_pools(branch: str, axis: int, family: str) -> None:
    reference = small("triplet", 12)
    for other in {"hw", "cw", "hc"} - {branch}:
        nn.init.zeros_(reference.get_parameter(f"{other}.conv.bn.weight"))
        nn.init.zeros_(reference.get_parameter(f"{other}.conv.bn.bias"))
    x = torch.rand(SHAPE, dtype=torch.float64) + 1
    with torch.inference_mode():
        gate = reference.export_form(SHAPE, family)(x) / x
    assert gate.std(axis).max() < 1e-12
    assert gate.std() > 1e-3


def test_without_the_spatial_branch_two_are_averaged() -> None:
    reference = create("triplet", no_spatial=True)
    assert not [key for key in reference.state_dict() if key.startswith("hw")]
    for parameter in reference.parameters():
        nn.init.zeros_(parameter)  # every gate is one half
    x = torch.randn(SHAPE)
    assert torch.allclose(reference.eval()(x), x / 2)


@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize("no_spatial", [False, True])
def test_the_map_is_multiplied_once_and_never_transposed(family: str, no_spatial: bool) -> None:
    form = small("triplet", 12, no_spatial=no_spatial).export_form(SHAPE, family).float()
    with torch.inference_mode():
        model = onnx_from_module(form, torch.zeros(SHAPE), GraphRequest(13, 7))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    sizes = {
        value.name: math.prod(extent.dim_value for extent in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.output)
    }
    of_the_map = [node.op_type for node in model.graph.node if sizes[node.output[0]] == math.prod(SHAPE)]
    sums = ["MatMul" if family == "cpu" else "Add", *([] if no_spatial else ["Add"])]
    in_parts = ["Reshape"] if family == "cpu" and not no_spatial else []
    assert sorted(of_the_map) == sorted([*sums, "Mul", *in_parts])


def test_a_gpu_graph_of_open_size_reads_no_shape() -> None:
    form = small("triplet", 12).export_form(SHAPE, "gpu", dynamic_size=True).float()
    with torch.inference_mode():
        request = GraphRequest(13, 7, dynamic_batch=True, dynamic_size=True)
        nodes = onnx_from_module(form, torch.zeros(SHAPE), request).graph.node
    assert not {"Shape", "Reshape"} & {node.op_type for node in nodes}
