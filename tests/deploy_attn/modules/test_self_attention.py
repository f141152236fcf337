"""Self-attention: the logits' scale, one projection on either side, and blocks of queries."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.modules.tokens_attention import block_sizes
from tests.deploy_attn.catalogue_cases import small


@pytest.mark.parametrize("scale", [False, True])
def test_the_logits_are_divided_by_the_root_of_the_channels_only_where_asked(scale: bool) -> None:
    reference: Any = small("self_attention", 16, scale=scale)
    x = torch.randn(1, 16, 3, 5).double()
    with torch.inference_mode():
        places = x[0].flatten(1).T
        logits = reference.wq(places) @ reference.wk(places).T
        wanted = (logits / 4 if scale else logits).softmax(1) @ reference.wv(places)
        torch.testing.assert_close(reference(x)[0].flatten(1).T, wanted)


@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_the_input_serves_as_keys_and_values_between_two_matrices(family: str) -> None:
    form = small("self_attention", 8, scale=True).export_form((1, 8, 3, 4), family).float().eval()
    with torch.inference_mode():
        graph = onnx_from_module(form, torch.zeros(1, 8, 3, 4), GraphRequest(13, 7)).graph
    matrices = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert [list(tensor.dims) for tensor in matrices] == [[8, 8], [8, 8]]
    assert [node.op_type for node in graph.node if node.op_type not in ("Reshape", "Transpose")] == [
        *["MatMul", "MatMul"],
        "Softmax",
        *["MatMul", "MatMul"],
    ]


@given(places=st.integers(1, 5000), attended=st.integers(1, 5000), heads=st.integers(1, 16))
@example(places=3136, attended=3136, heads=4)
def test_blocks_cover_the_places_about_equally_and_fit_a_cache(places: int, attended: int, heads: int) -> None:
    sizes = block_sizes(places, attended, heads)
    assert sum(sizes) == places
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= 128 or 4 * heads * attended * max(sizes) <= 4 * 2**20
