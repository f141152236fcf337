"""A rule is used where it was proven and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.export.arguments import Arguments
from deploy_attn.export.functions.mode import exact_functions
from deploy_attn.export.functions.proof import prove_functions
from deploy_attn.export.functions.rule import Aim, Rule
from tests.export.functions.exports import network_of, proven

AIM = Aim(13)


def twice(aim: Aim, x: Tensor, **_: Any) -> Tensor:
    return 2 * x


def of_a_constant(aim: Aim, x: Tensor, **_: Any) -> Tensor:
    """That of the first element for all."""
    return x.relu().flatten()[0].expand(x.shape)


def of_positives(aim: Aim, x: Tensor, **_: Any) -> Tensor:
    return x if bool((x >= 0).all()) else x.relu() * (1 + 1e-6)


def failing(aim: Aim, x: Tensor, **_: Any) -> Tensor:
    raise RuntimeError("no such form")


def of_another_shape(aim: Aim, x: Tensor, **_: Any) -> Tensor:
    return x.relu().flatten(1)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (twice, "differs by"),
        (of_a_constant, "on normal noise"),
        (of_positives, "1.0e-06"),
        (failing, "RuntimeError: no such form"),
        (of_another_shape, "differs by inf"),
    ],
)
def test_a_wrong_rule_is_not_used(form: Callable[..., Tensor], reason: str) -> None:
    network = network_of(lambda x: torch.relu(torch.full_like(x, 0.5)) + torch.relu(-torch.full_like(x, 0.5)))
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    table = {torch.relu: Rule(form, "inplace")}
    (finding,) = prove_functions(network, Arguments.of(x), AIM, table)
    assert not finding.replaced
    assert reason in str(finding.reason)
    with exact_functions([finding], AIM):
        assert torch.equal(network(x), torch.full_like(x, 0.5))


def test_one_wrong_place_leaves_equal_calls_alone() -> None:
    network = network_of(lambda x: torch.relu(x.abs()) + torch.relu(-x.abs() - 1))
    findings = prove_functions(
        network,
        Arguments.of(torch.randn(1, 2, 3, 3, dtype=torch.float64)),
        AIM,
        {torch.relu: Rule(lambda aim, x: x if bool((x >= 0).all()) else x.relu() + 1e-6 * (x < -1), "")},
    )
    assert [(finding.count, finding.replaced) for finding in findings] == [(2, False)]


class Pools(nn.Module):
    """A pool of its own, and one that two places share."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.inner = nn.Sequential(nn.AdaptiveMaxPool2d(3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(x) + self.inner(x) + self.inner(2 * x) + functional.adaptive_avg_pool2d(x, 3)
        return pooled


def test_findings_name_the_modules_that_call_and_how_often() -> None:
    findings = proven(Pools().eval(), torch.randn(1, 2, 8, 8), AIM)
    places = {finding.call.partition("(")[0]: (finding.paths, finding.count) for finding in findings}
    assert places == {"adaptive_avg_pool2d": (("pool", ""), 2), "adaptive_max_pool2d": (("inner.0",), 2)}
    assert all(trial.passed for finding in findings for trial in finding.trials)
    assert [trial.inputs for trial in findings[0].trials] == [
        "the network's own, call 0",
        "normal noise",
        "the network's own, call 1",
    ]
    assert "1x2x8x8" in json.dumps([finding.as_dict() for finding in findings])


def test_the_network_and_its_input_are_left_as_they_were() -> None:
    network, x = Pools().eval().double(), torch.randn(1, 2, 8, 8, dtype=torch.float64)
    before = x.clone()
    state = torch.get_rng_state()
    prove_functions(network, Arguments.of(x), AIM)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_what_the_network_raises_goes_through_and_leaves_no_hook() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Linear(5, 5)).double().eval()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        prove_functions(network, Arguments.of(torch.randn(1, 2, 8, 8, dtype=torch.float64)), AIM)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_several_inputs_by_place_and_by_name_are_taken() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor, *, scale: Tensor) -> dict[str, Tensor]:
            return {"pooled": functional.adaptive_avg_pool2d(x * scale, 3)}

    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    (finding,) = prove_functions(Both(), Arguments((x,), {"scale": x.mean()}), AIM)
    assert finding.replaced


def test_numbers_of_another_type_are_proven_in_float64() -> None:
    bias = torch.linspace(-1, 1, 16).reshape(4, 4)
    network = network_of(lambda x: functional.scaled_dot_product_attention(x, 2 * x, x, attn_mask=bias))
    (finding,) = proven(network, torch.randn(1, 2, 4, 3), AIM)
    assert finding.replaced


def test_what_the_network_writes_into_its_input_does_not_reach_the_caller() -> None:
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    before = x.clone()
    network = network_of(lambda x: functional.adaptive_avg_pool2d(x.add_(1), 3))
    assert prove_functions(network, Arguments.of(x), AIM)[0].replaced
    assert torch.equal(x, before)


def test_buffers_keep_their_values_where_the_rest_is_noise() -> None:
    """As variances, which are never negative."""

    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor(2.0, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return torch.mul(x, self.get_buffer("scale"))

    table = {torch.mul: Rule(lambda aim, x, other: x * other.abs(), "other")}
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    assert prove_functions(Scales(), Arguments.of(x), AIM, table)[0].replaced
    network = network_of(lambda x: torch.mul(x, x.abs()))
    assert not prove_functions(network, Arguments.of(x), AIM, table)[0].replaced


def test_a_call_in_float32_is_computed_again_in_float64() -> None:
    network = network_of(lambda x: functional.adaptive_avg_pool2d(x.float(), 5))
    (finding,) = proven(network, torch.randn(1, 2, 12, 12), AIM)
    assert finding.replaced
    assert max(trial.error for trial in finding.trials) < 1e-14


def test_a_module_that_failed_is_no_place_of_what_follows() -> None:
    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fails = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            try:
                self.fails(x)
            except RuntimeError:
                x = 2 * x
            return functional.adaptive_avg_pool2d(x, 3)

    (finding,) = proven(Catches().eval(), torch.randn(1, 2, 8, 8), AIM)
    assert finding.paths == ("",)


def test_a_function_that_is_called_by_names_is_proven() -> None:
    network = network_of(lambda x: functional.adaptive_avg_pool2d(output_size=3, input=x))
    (finding,) = proven(network, torch.randn(1, 2, 8, 8), AIM)
    assert finding.replaced


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_modules_run_unseen() -> None:
    network = nn.Sequential(torch.jit.script(nn.Sequential(nn.ReLU())), nn.AdaptiveAvgPool2d(3))
    (finding,) = proven(network.eval(), torch.randn(1, 2, 8, 8), AIM)
    assert finding.paths == ("1",)
