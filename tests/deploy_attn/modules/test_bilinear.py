"""Bilinear attention: the order of the pairs, gates that only enhance, and what each family's graph lacks."""

from __future__ import annotations

import pytest
import torch

from deploy_attn import BadRequest, create
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from tests.deploy_attn.catalogue_cases import small


@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_pairs_stand_in_the_order_of_the_diagonals(family: str) -> None:
    form = small("bilinear", 48).export_form((1, 48, 4, 4), family)
    pairs = zip(form.get_buffer("lower").tolist(), form.get_buffer("upper").tolist(), strict=True)
    assert list(pairs) == [(0, 0), (1, 1), (2, 2), (1, 0), (2, 1), (2, 0)]


def test_no_gate_is_below_one_half() -> None:
    form = small("bilinear", 32)
    x = torch.randn(4, 32, 6, 6).double()
    gate = form(x) / x
    assert gate.min() >= 0.5
    assert gate.max() > 0.5


@pytest.mark.parametrize(
    ("family", "products"), [("cpu", {"Conv": 3}), ("gpu", {"MatMul": 3})], ids=["convolutions", "matrix products"]
)
def test_a_graph_gathers_pairs_and_moves_nothing_else(family: str, products: dict[str, int]) -> None:
    form = small("bilinear", 32).export_form((1, 32, 5, 6), family).float().eval()
    model = onnx_from_module(form, torch.randn(1, 32, 5, 6), GraphRequest(13, 7, dynamic_batch=True))
    operators = [node.op_type for node in model.graph.node]
    heavy = {name: operators.count(name) for name in ("Conv", "Gemm", "MatMul") if name in operators}
    assert heavy == products
    assert operators.count("Gather") == 2
    assert not {"Transpose", "Concat", "Slice", "Shape"} & set(operators)


def test_too_few_channels_for_one_pair_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"bilinear cannot take channels=15: .* What would fit: channels=16\."):
        create("bilinear", channels=15)
