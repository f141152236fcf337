"""Holds that the copy which is proven computes what the caller's network does, and that the caller's is as it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import deploy_attn
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.rewriting.prepare import prepared, restored


class _Positive(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.exp()


def _old_norms(conv: nn.Conv2d) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.spectral_norm(nn.utils.weight_norm(conv, "bias"))


def _two_parametrizations(conv: nn.Conv2d) -> nn.Module:
    parametrize.register_parametrization(conv, "weight", _Positive())
    parametrize.register_parametrization(conv, "weight", _Positive())
    parametrize.register_parametrization(conv, "bias", _Positive())
    return conv


WRAPS: dict[str, Callable[[nn.Conv2d], nn.Module]] = {
    "weight_norm": lambda conv: parametrizations.weight_norm(conv),
    "spectral_norm": lambda conv: parametrizations.spectral_norm(conv),
    "orthogonal": lambda conv: parametrizations.orthogonal(conv),
    "several": _two_parametrizations,
    "old hooks": _old_norms,
    "pruned": lambda conv: prune.l1_unstructured(conv, "weight", 0.5),
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_weights_that_are_computed_stand_there_by_themselves_and_are_the_same(wrap: str) -> None:
    torch.manual_seed(0)
    conv = WRAPS[wrap](nn.Conv2d(8, 8, 3))
    network = nn.Sequential(conv, nn.ReLU(), conv).double().train()
    x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    network(x)  # power iterations, and the weights that old hooks leave behind
    state = {key: value.clone() for key, value in network.state_dict().items()}
    plain = prepared(network)
    assert set(plain.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert plain[0] is plain[2]  # type: ignore[index]
    assert type(plain[0]) is nn.Conv2d  # type: ignore[index]
    assert not plain[0]._forward_pre_hooks  # type: ignore[index]
    assert network.training
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in state.items())
    with torch.inference_mode():
        assert torch.equal(plain(x), network.eval()(x))


def test_a_buffer_that_is_parametrized_stays_a_buffer() -> None:
    network = nn.BatchNorm2d(3)
    parametrize.register_parametrization(network, "running_var", _Positive())
    plain = prepared(network)
    assert torch.allclose(plain.get_buffer("running_var"), torch.full((3,), torch.e, dtype=torch.float64))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_the_result_has_the_callers_type_and_the_caller_keeps_everything(kind: torch.dtype, training: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 1), deploy_attn.create("se", channels=16, reduction=4)).to(kind)
    network.register_buffer("table", torch.arange(3), persistent=False)
    network.train(training)
    before = copy.deepcopy(network)
    result = deploy_attn.rewrite(network, torch.randn(1, 3, 6, 5))
    assert [finding.replaced for finding in result.findings] == [True]
    assert {value.dtype for value in result.model.parameters()} == {kind}
    assert result.model.get_buffer("table").dtype == torch.int64
    assert not result.model.training
    assert network.training == training
    assert all(torch.equal(first, second) for first, second in zip(before.parameters(), network.parameters()))
    assert type(network[1]) is type(before[1])


def test_a_network_without_numbers_is_restored_as_float32() -> None:
    network = nn.Sequential(nn.ReLU())
    assert restored(prepared(network), network) is not network


def test_the_type_of_the_weights_decides_and_not_that_of_what_is_kept_beside_them() -> None:
    network = nn.Sequential(nn.Linear(2, 2)).half()
    network.register_buffer("places", torch.arange(3))
    network.register_buffer("table", torch.ones(3))
    assert {value.dtype for value in restored(prepared(network), network).parameters()} == {torch.float16}
    buffers = nn.Sequential()
    buffers.register_buffer("places", torch.arange(3))
    buffers.register_buffer("table", torch.ones(3).bfloat16())
    assert restored(prepared(buffers), buffers).get_buffer("table").dtype == torch.bfloat16


def test_a_lazy_network_is_refused_until_it_has_weights() -> None:
    network = nn.Sequential(nn.LazyConv2d(16, 1), deploy_attn.create("se", channels=16, reduction=4))
    with pytest.raises(BadRequest, match="run the network once"):
        deploy_attn.rewrite(network, torch.zeros(1, 3, 6, 5))
    network(torch.zeros(1, 3, 6, 5))
    assert deploy_attn.rewrite(network, torch.zeros(1, 3, 6, 5)).findings[0].replaced
