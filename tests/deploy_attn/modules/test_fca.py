"""Frequency channel attention: the cosines, bins that overlap, and a constant that is stored once for each part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import deploy_attn
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.modules.base import ReferenceForm
from tests.conftest import load_golden

ZERO_OF_A_COSINE = 1e-6  # the buffer is float32


def test_a_new_one_has_the_cosines_of_the_source() -> None:
    weight = deploy_attn.create("fca", channels=64).get_buffer("dct_layer.weight")
    assert np.array_equal(weight.numpy(), load_golden("fca_0").state["dct_layer.weight"])


def test_below_seven_every_frequency_is_zero() -> None:
    weight = deploy_attn.create("fca", channels=16, dct_height=6, dct_width=6).get_buffer("dct_layer.weight")
    torch.testing.assert_close(weight, torch.full_like(weight, 1 / 6))


@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize(("height", "width"), [(7, 7), (14, 21), (10, 9), (5, 3), (1, 1)])
def test_one_constant_stands_for_the_pooling_whether_bins_overlap_or_not(family: str, height: int, width: int) -> None:
    reference = _reference()
    x = torch.randn(2, 64, height, width).double() + 3
    form = reference.export_form((1, 64, height, width), family)
    torch.testing.assert_close(form(x), reference(x), rtol=1e-12, atol=1e-13)
    with torch.inference_mode():
        graph = onnx_from_module(form.float().eval(), x[:1].float(), GraphRequest(13, 7)).graph
    assert not [node.op_type for node in graph.node if "Pool" in node.op_type]


@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_weights_are_stored_once_for_each_frequency_unless_a_checkpoint_has_others(family: str) -> None:
    reference = _reference()
    form = reference.export_form((1, 64, 9, 8), family)
    assert form.get_buffer("filters").numel() == 16 * 9 * 8
    reference.get_buffer("dct_layer.weight")[5].mul_(2)
    form = reference.export_form((1, 64, 9, 8), family)
    assert form.get_buffer("filters").numel() == 64 * 9 * 8
    x = torch.randn(2, 64, 9, 8).double()
    torch.testing.assert_close(form(x), reference(x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("extent", "size"), [(7, 448), (56, 56), (224, 224)])
def test_the_weights_of_a_large_map_are_at_most_one_and_normal_in_fp16(extent: int, size: int) -> None:
    form = _reference(dct_height=extent, dct_width=extent).export_form((1, 64, size, size), "gpu")
    filters = form.get_buffer("filters").abs()
    assert 0.5 <= filters.amax() <= 1
    assert filters[filters > ZERO_OF_A_COSINE].amin() > 2.0**-14


def _reference(**options: object) -> ReferenceForm:
    torch.manual_seed(0)
    return deploy_attn.create("fca", channels=64, **options).double().eval()
