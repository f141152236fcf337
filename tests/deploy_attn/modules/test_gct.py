"""Gated channel transformation: what its options change, and where epsilon goes when sums become means."""

from __future__ import annotations

import pytest
import torch

import deploy_attn
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.modules.base import ReferenceForm


@pytest.mark.parametrize("mode", ["l2", "l1"])
def test_an_untrained_one_is_the_identity(mode: str) -> None:
    form = deploy_attn.create("gct", channels=8, mode=mode)
    x = torch.randn(2, 8, 5, 6)
    assert torch.equal(form(x), x)


def test_after_relu_matters_in_mode_l1_only() -> None:
    x = torch.randn(2, 8, 5, 6).double()
    assert torch.equal(_trained(after_relu=True)(x), _trained()(x))
    signed = _trained(mode="l1", after_relu=True)
    assert not torch.allclose(signed(x), _trained(mode="l1")(x))
    torch.testing.assert_close(signed(x.abs()), _trained(mode="l1")(x.abs()))


@pytest.mark.parametrize(("mode", "after_relu"), [("l2", False), ("l1", False), ("l1", True)])
@pytest.mark.parametrize("open_size", [False, True])
def test_forms_agree_where_epsilon_is_larger_than_the_map(mode: str, after_relu: bool, open_size: bool) -> None:
    reference = _trained(mode=mode, after_relu=after_relu, epsilon=0.5)
    x = 1e-2 * torch.randn(2, 8, 5, 6).double()
    form = reference.export_form((1, 8, 5, 6), dynamic_size=open_size)
    torch.testing.assert_close(form(x), reference(x), rtol=1e-12, atol=0)
    assert not torch.allclose(_trained(mode=mode, after_relu=after_relu)(x), reference(x), rtol=1e-3)
    assert torch.equal(form(torch.zeros_like(x)), torch.zeros_like(x))


@pytest.mark.parametrize("mode", ["l2", "l1"])
def test_the_exported_graph_has_no_sum_over_the_map_and_one_root_at_most(mode: str) -> None:
    form = _trained(mode=mode).export_form((1, 8, 5, 6)).float().eval()
    with torch.inference_mode():
        graph = onnx_from_module(form, torch.zeros(1, 8, 5, 6), GraphRequest(17, 8)).graph
    operators = [node.op_type for node in graph.node]
    assert [operator for operator in operators if operator.startswith("Reduce")] == ["ReduceMean"]
    assert operators.count("Sqrt") == (1 if mode == "l2" else 0)
    assert not {"Pow", "Tanh", "Transpose"} & set(operators)


def _trained(**options: object) -> ReferenceForm:
    """The same weights whatever the options."""
    form = deploy_attn.create("gct", channels=8, **options).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in form.parameters():
        torch.nn.init.normal_(parameter, 0.3, 0.5, generator=generator)
    return form
