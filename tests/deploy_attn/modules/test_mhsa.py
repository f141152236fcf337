"""MHSA: the source's position term, and what is never built or transposed."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from deploy_attn import BadRequest
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.modules.base import ReferenceForm
from tests.deploy_attn.catalogue_cases import small


@pytest.mark.parametrize("family", ["reference", "cpu", "gpu"])
def test_a_position_meets_the_other_places_query_and_a_small_map_takes_the_first_of_the_table(family: str) -> None:
    reference: Any = small("mhsa", 4, pos_emb=True, width=3, height=4)
    form = reference if family == "reference" else reference.export_form((1, 4, 2, 5), family)
    x = torch.randn(1, 4, 2, 5).double()
    with torch.inference_mode():
        torch.testing.assert_close(form(x).flatten(2)[0], _by_hand(reference, x))


def _by_hand(reference: Any, x: Tensor) -> Tensor:
    """Two heads of two channels on ten places; place n of the table, 3 x 4, is at row n // 4, column n % 4."""
    q, k, v = (conv(x).flatten(2)[0] for conv in (reference.query, reference.key, reference.value))
    attended = torch.zeros(4, 10, dtype=torch.float64)
    for head, place in ((head, place) for head in range(2) for place in range(10)):
        channels = slice(2 * head, 2 * head + 2)
        position = reference.rel_h_weight[0, head, :, 0, place % 4] + reference.rel_w_weight[0, head, :, place // 4, 0]
        logits = q[channels, place] @ k[channels] + position @ q[channels]
        attended[channels, place] = v[channels] @ logits.softmax(0)
    return attended


def test_a_map_of_more_places_than_the_table_is_refused_and_of_another_shape_is_not() -> None:
    form = small("mhsa", 4, pos_emb=True, width=3, height=4)
    assert form(torch.zeros(1, 4, 1, 12).double()).shape == (1, 4, 1, 12)
    with pytest.raises(BadRequest, match=r"mhsa cannot take map_height=13.*What would fit: map_height=12"):
        form(torch.zeros(1, 4, 13, 1).double())
    with pytest.raises(BadRequest, match="cannot leave height and width open: it needs pos_emb=False"):
        form.export_form((1, 4, 3, 4), dynamic_size=True)


@pytest.mark.parametrize("pos_emb", [False, True])
def test_the_keys_bias_changes_nothing(pos_emb: bool) -> None:
    reference: Any = small("mhsa", 4, pos_emb=pos_emb)
    x = torch.randn(1, 4, 3, 4).double()
    with torch.inference_mode():
        before = reference(x)
        reference.key.bias.add_(10)
        torch.testing.assert_close(reference(x), before)
        nn.init.zeros_(reference.query.bias)
        assert not torch.allclose(reference(x), before)


@pytest.mark.parametrize("pos_emb", [False, True])
def test_on_a_gpu_the_matrix_of_weights_is_the_logits_and_the_softmax_and_no_more(pos_emb: bool) -> None:
    shapes = _shapes(small("mhsa", 8, pos_emb=pos_emb, width=18, height=18), "gpu")
    assert [extents for extents in shapes if extents.count(324) == 2] == [[1, 2, 324, 324]] * 2


@pytest.mark.parametrize("pos_emb", [False, True])
def test_on_a_cpu_the_matrix_of_weights_never_exists_as_a_whole(pos_emb: bool) -> None:
    shapes = _shapes(small("mhsa", 16, heads=16, pos_emb=pos_emb, width=18, height=18), "cpu")
    assert [extents for extents in shapes if 324 in extents and 162 in extents] == [[1, 16, 162, 324]] * 4
    assert not [extents for extents in shapes if extents.count(324) == 2]


def _shapes(reference: ReferenceForm, family: str) -> list[list[int]]:
    x = torch.zeros(1, reference.get_parameter("query.weight").shape[0], 18, 18)
    form = reference.export_form((1, x.shape[1], 18, 18), family).float().eval()
    with torch.inference_mode():
        model = onnx_from_module(form, x, GraphRequest(13, 7))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    return [[dimension.dim_value for dimension in value.type.tensor_type.shape.dim] for value in inferred]
