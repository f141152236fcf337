"""BatchNorms go into the layer before them where nothing else sees the difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.export.arguments import Arguments
from deploy_attn.rewriting.folding import Folded, fold
from deploy_attn.rewriting.prepare import prepared
from tests.torchvision_here import torchvision_here

torchvision_here()
from timm import create_model  # noqa: E402  # timm imports torchvision
from timm.layers.norm_act import BatchNormAct2d  # noqa: E402

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def disturbed(network: nn.Module) -> nn.Module:
    """With statistics, weights and an eps that a wrong fold would show."""
    for module in network.modules():
        if isinstance(module, Norm) and module.running_mean is not None and module.running_var is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.01, 2)
            if module.affine:
                nn.init.uniform_(module.weight, -2, 2)
                nn.init.normal_(module.bias)
    return network.eval()


def folded(network: nn.Module, *shape: int) -> tuple[Folded, float]:
    """The result, and how far it is from the network on another input of the same shape."""
    reference = prepared(disturbed(network))
    example, other = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    result = fold(reference, Arguments.of(example))
    with torch.inference_mode():
        wanted, got = reference(other.clone()), result.network(other.clone())
    return result, float((wanted - got).norm() / wanted.norm())


def norms_of(network: nn.Module) -> int:
    return sum(isinstance(module, Norm) for module in network.modules())


FOLDED: dict[str, tuple[list[nn.Module], tuple[int, ...]]] = {
    "convolution": ([nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6, eps=0.1)], (2, 4, 7, 8)),
    "its bias": ([nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6, eps=1e-3)], (2, 4, 7, 8)),
    "groups and dilation": ([nn.Conv2d(4, 8, 3, dilation=2, groups=4), nn.BatchNorm2d(8)], (2, 4, 9, 9)),
    "circular": ([nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(6)], (2, 4, 7, 8)),
    "a row": ([nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)], (2, 4, 9)),
    "a volume": ([nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3)], (1, 2, 4, 5, 6)),
    "transposed": ([nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), nn.BatchNorm2d(6)], (2, 4, 5, 5)),
    "transposed in groups": ([nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6)], (2, 4, 5, 5)),
    "linear": ([nn.Linear(5, 6), nn.BatchNorm1d(6)], (3, 5)),
    "without weights": ([nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, affine=False)], (2, 4, 5, 5)),
    "through an identity": ([nn.Conv2d(4, 6, 1), nn.Identity(), nn.BatchNorm2d(6)], (2, 4, 5, 5)),
    "a norm with an activation": ([nn.Conv2d(4, 6, 1), BatchNormAct2d(6, act_layer=nn.SiLU)], (2, 4, 5, 5)),
    "a norm with a write in place": ([nn.Conv2d(4, 6, 1), BatchNormAct2d(6)], (2, 4, 5, 5)),
    "two in a row": (
        [nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)],
        (2, 4, 5, 5),
    ),
}


@pytest.mark.parametrize(("modules", "shape"), FOLDED.values(), ids=FOLDED)
def test_a_norm_goes_into_the_layer_before_it(modules: list[nn.Module], shape: tuple[int, ...]) -> None:
    network = nn.Sequential(*modules)
    count = norms_of(network)
    result, error = folded(network, *shape)
    assert error < 1e-13
    assert norms_of(result.network) == 0
    assert len(result.findings) == count
    for finding in result.findings:
        assert finding.replaced
        assert finding.certificate is not None
        assert finding.certificate.proven


def test_findings_say_where_and_why() -> None:
    result, _ = folded(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=2e-4)), 1, 3, 4, 4)
    (finding,) = result.findings
    assert finding.paths == ("1",)
    assert finding.class_name == "torch.nn.modules.batchnorm.BatchNorm2d"
    assert finding.recognised_as == "BatchNorm after 0"
    assert "eps 0.0002" in finding.evidence


@settings(max_examples=25, deadline=None)
@given(
    data=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)),
    transposed=st.booleans(),
    bias=st.booleans(),
)
def test_every_convolution_folds_exactly(data: tuple[int, ...], transposed: bool, bias: bool) -> None:
    groups, times, kernel, stride = data
    kind: Any = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(2 * groups, times * groups, kernel, stride=stride, groups=groups, bias=bias)
    result, error = folded(nn.Sequential(layer, nn.BatchNorm2d(times * groups)), 2, 2 * groups, 6, 5)
    assert len(result.findings) == 1
    assert error < 1e-12


class Pair(nn.Module):
    """A convolution and a norm, put together by a function."""

    def __init__(self, together: Callable[..., Tensor], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.together = together
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = norm or nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.together(self, x)


def with_a_second_reader(pair: Pair, x: Tensor) -> Tensor:
    y = pair.conv(x)
    output: Tensor = pair.norm(y) + y
    return output


def with_a_view(pair: Pair, x: Tensor) -> Tensor:
    y = pair.conv(x)
    view = y[:, :2]
    output: Tensor = pair.norm(y)[:, :2] * view
    return output


def with_a_write_between(pair: Pair, x: Tensor) -> Tensor:
    y = pair.conv(x)
    y += 1
    output: Tensor = pair.norm(y)
    return output


def with_a_layer_called_twice(pair: Pair, x: Tensor) -> Tensor:
    output: Tensor = pair.norm(pair.conv(pair.conv(x)))
    return output


def with_a_norm_called_twice(pair: Pair, x: Tensor) -> Tensor:
    output: Tensor = pair.norm(pair.norm(pair.conv(x)))
    return output


def with_a_second_use_of_the_weight(pair: Pair, x: Tensor) -> Tensor:
    output: Tensor = pair.norm(pair.conv(x)) + functional.conv2d(x, pair.conv.weight, padding=1)
    return output


def with_a_use_of_the_norms_weight(pair: Pair, x: Tensor) -> Tensor:
    output: Tensor = pair.norm(pair.conv(x)) * pair.norm.get_parameter("weight").abs().sum()
    return output


def with_a_read_of_the_eps(pair: Pair, x: Tensor) -> Tensor:
    output: Tensor = pair.norm(pair.conv(x)) * pair.norm.eps
    return output


def returning_both(pair: Pair, x: Tensor) -> Tensor:
    y = pair.conv(x)
    pair.norm(y)
    output: Tensor = y
    return output


class Scaled(nn.BatchNorm2d):
    """A norm that does more than its kind."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


LEFT_ALONE: dict[str, nn.Module] = {
    **{
        function.__name__: Pair(function)
        for function in (
            with_a_second_reader,
            with_a_view,
            with_a_write_between,
            with_a_layer_called_twice,
            with_a_norm_called_twice,
            with_a_second_use_of_the_weight,
            with_a_use_of_the_norms_weight,
            with_a_read_of_the_eps,
            returning_both,
        )
    },
    "a norm that does more": nn.Sequential(nn.Conv2d(4, 4, 1), Scaled(4)),
    "statistics of the batch": nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
    "a norm first": nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)),
    "something between": nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
    "no norm": nn.Sequential(nn.Conv2d(4, 4, 1)),
}


@pytest.mark.parametrize("network", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_a_norm_whose_input_others_see_is_left_alone(network: nn.Module) -> None:
    count = norms_of(network)
    result, error = folded(network, 2, 4, 5, 5)
    assert result.findings == ()
    assert norms_of(result.network) == count
    assert error == 0


def test_a_norm_of_rows_after_a_linear_layer_of_tokens_is_left_alone() -> None:
    result, _ = folded(nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6)), 2, 6, 5)
    assert result.findings == ()


def test_a_look_at_the_shape_does_not_hinder() -> None:
    def together(pair: Pair, x: Tensor) -> Tensor:
        y = pair.conv(x)
        batch, channels = y.shape[:2]
        output: Tensor = pair.norm(y).reshape(batch, channels, -1)
        return output

    result, error = folded(Pair(together), 2, 4, 5, 5)
    assert len(result.findings) == 1
    assert error < 1e-13


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_what_has_hooks_is_left_alone(kind: str, place: int) -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    getattr(network[place], kind)(lambda *_: None)
    result, _ = folded(network, 1, 4, 5, 5)
    assert result.findings == ()


def test_one_norm_that_does_not_fold_leaves_the_others() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), Scaled(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    result, error = folded(network, 1, 4, 5, 5)
    assert [finding.paths for finding in result.findings] == [("3",)]
    assert error < 1e-13


class Curved(nn.BatchNorm2d):
    """A norm that does more where its map is not zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.square()


def test_a_norm_that_hides_on_the_networks_own_activations_is_left_alone() -> None:
    network = prepared(disturbed(nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), Curved(4))))
    assert fold(network, Arguments.of(torch.zeros(1, 4, 6, 6, dtype=torch.float64))).findings == ()


class Bare(nn.Module):
    """A norm by its statistics, without what a BatchNorm has besides."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.ones(4))
        self.register_buffer("running_var", torch.ones(4))
        self.eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        return x - self.get_buffer("running_mean").reshape(-1, 1, 1)


def test_a_norm_of_another_kind_is_left_alone() -> None:
    result, error = folded(nn.Sequential(nn.Conv2d(4, 4, 1), Bare()), 1, 4, 5, 5)
    assert result.findings == ()
    assert error == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_norm_is_left_alone() -> None:
    result, error = folded(
        nn.Sequential(nn.Conv2d(4, 4, 1), torch.jit.script(nn.BatchNorm2d(4, affine=False))), 1, 4, 5, 5
    )
    assert result.findings == ()
    assert error == 0


def test_a_norm_in_training_is_not_even_run() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).double()
    assert fold(network, Arguments.of(torch.randn(2, 4, 5, 5, dtype=torch.float64))).findings == ()
    assert int(network.get_buffer("1.num_batches_tracked")) == 0


def test_one_window_of_the_first_item_is_tried_and_noise() -> None:
    result, _ = folded(nn.Sequential(nn.Conv2d(4, 6, (3, 2), dilation=(2, 1)), nn.BatchNorm2d(6)), 3, 4, 9, 9)
    certificate = result.findings[0].certificate
    assert certificate is not None
    assert [trial.shape for trial in certificate.trials] == [(2, 4, 5, 2)]


def test_the_network_is_left_as_it_was() -> None:
    network = disturbed(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Linear(5, 5))).double()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    result = fold(network, Arguments.of(torch.randn(1, 4, 5, 5, dtype=torch.float64)))
    assert len(result.findings) == 1
    assert isinstance(network.get_submodule("1"), nn.BatchNorm2d)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert result.network.get_submodule("2").weight is network.get_submodule("2").weight


@pytest.mark.parametrize(("name", "left"), [("resnet18", 0), ("mobilenetv3_small_050", 0)])
def test_networks_of_timm_fold(name: str, left: int) -> None:
    network = create_model(name)
    count = norms_of(network)
    result, error = folded(network, 1, 3, 64, 64)
    assert norms_of(result.network) == left
    assert len(result.findings) == count - left
    assert error < 1e-11
