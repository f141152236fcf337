"""What a network meets under its exact forms is what it meets without."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.export.functions.mode import exact_functions, handled_by
from deploy_attn.export.functions.rule import Aim
from tests.export.functions.exports import both_ways, exported, network_of, proven

AIM = Aim(13)


def test_a_write_into_a_result_does_not_reach_what_was_pooled() -> None:
    network = network_of(lambda x: functional.adaptive_avg_pool2d(x, 6).add_(1) + x)
    plain, again, (finding,) = both_ways(network, torch.randn(1, 2, 6, 6), AIM)
    assert finding.replaced
    torch.testing.assert_close(plain, again)
    assert exported(network, torch.randn(1, 2, 6, 6)).error < 1e-6


def test_a_call_that_was_not_proven_stays() -> None:
    network = network_of(lambda x: functional.adaptive_avg_pool2d(x, 3))
    findings = proven(network, torch.randn(1, 2, 6, 6), AIM)
    seen = []

    def counted(function: object, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> object:
        seen.append(getattr(function, "__name__", ""))
        return function(*args, **kwargs)  # type: ignore[operator]

    for size, expected in ((6, False), (9, True)):
        seen.clear()
        with handled_by(counted), exact_functions(findings, AIM):
            network(torch.randn(1, 2, size, size))
        assert ("adaptive_avg_pool2d" in seen) == expected


def test_gradients_flow_through_the_forms() -> None:
    network = network_of(lambda x: functional.adaptive_max_pool2d(x, 5).square())
    findings = proven(network, torch.randn(1, 2, 8, 8), AIM)
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    with exact_functions(findings, AIM):
        (inside,) = torch.autograd.grad(network(x).sum(), x)
    (outside,) = torch.autograd.grad(network(x).sum(), x)
    torch.testing.assert_close(inside, outside)


class Branches(nn.Module):
    """Its trace holds one branch, of which the tracer warns."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(x, 3)
        for _ in range(3):
            pooled = pooled + (1 if x.mean() > 5 else 2)
        return pooled


def test_a_warning_names_the_line_of_the_network_and_comes_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exported(Branches().eval(), torch.randn(1, 2, 8, 8))
    traced = [warning for warning in caught if "Python boolean" in str(warning.message)]
    assert [warning.filename for warning in traced] == [__file__]


def test_without_a_proven_call_nothing_is_handled() -> None:
    with exact_functions((), AIM) as mode:
        assert mode is None


def test_filters_go_by_the_line_that_called_and_every_message_comes_once() -> None:
    def warning(function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        for message in ("first", "second"):
            warnings.warn_explicit(message, UserWarning, "elsewhere.py", 1, "elsewhere")
        return function(*args, **kwargs)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=__name__.replace(".", r"\."))
        with handled_by(warning):
            for _ in range(3):
                torch.relu(torch.zeros(1))
    assert [str(said.message) for said in caught] == ["first", "second"]
    assert {said.filename for said in caught} == {__file__}
