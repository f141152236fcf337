"""Copies of the catalogue's sources under another class name, and look-alikes with the same keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploy_attn.rewriting.families.loaded import loaded
from deploy_attn.rewriting.families.pasted import recognise
from deploy_attn.rewriting.rewrite import rewrite
from tests.deploy_attn.rewriting.foreign import foreign
from tests.deploy_attn.rewriting.stem import (
    check_in_onnxruntime,
    check_left_alone,
    check_replaced,
    network_with,
    photo,
    randomised,
)

C = 32
ROWS: list[tuple[str, dict[str, object]]] = [
    ("cot", {}),
    ("cot", {"kernel_size": 5}),
    ("sk", {"min_hidden": 4}),
    ("sk", {"kernel_sizes": (1, 3), "groups": 4, "reduction": 4}),
    ("parnet", {}),
    ("gsop", {"att_dim": 8}),
    ("srm", {}),
    ("gct", {"epsilon": 1e-3}),
    ("gct", {"mode": "l1"}),
    ("gct", {"mode": "l1", "after_relu": True}),
    ("fca", {"reduction": 4}),
    ("fca", {"reduction": 8, "frequencies": "top4", "dct_height": 14, "dct_width": 7}),
    ("encnet", {"codes": 4}),
    ("bilinear", {}),
    ("self_attention", {}),
    ("self_attention", {"scale": True}),
    ("s2", {}),
    ("s2", {"semantics": "smear"}),
]


def said(row: tuple[str, dict[str, object]]) -> str:
    return f"{row[0]} {row[1]}"


@pytest.mark.parametrize("row", ROWS, ids=said)
def test_a_copy_of_a_source_is_replaced_under_any_class_name(row: tuple[str, dict[str, object]]) -> None:
    name, options = row
    check_replaced(network_with(foreign(name, channels=C, **options), C), name, engine="gpu")


def test_a_mobilevit_block_is_replaced_with_the_patch_that_its_attributes_say() -> None:
    block = foreign("mobilevit", channels=4, dim=6, patch_size=3)
    del block.patch_size
    block.ph = 3
    kind = type(block)
    kind.patch_size = property(lambda self: self.ph)
    result = rewrite(randomised(nn.Sequential(block)), torch.randn(1, 4, 6, 9))
    assert result.findings[0].replaced, result.findings[0].reason
    assert result.whole.error <= 1e-11


def test_the_epsilon_of_an_instance_is_taken() -> None:
    module = foreign("parnet", channels=C)
    module.conv1x1[1].eps, module.conv3x3[1].eps = 1e-3, 0.1
    check_replaced(network_with(module, C), "parnet")


def test_a_convolution_without_the_sources_bias_is_taken() -> None:
    module = foreign("parnet", channels=C)
    module.conv3x3[0].bias = None
    check_replaced(network_with(module, C), "parnet")


@pytest.mark.parametrize("row", [ROWS[0], ROWS[3], ROWS[9], ROWS[10], ROWS[14], ROWS[16]], ids=said)
def test_the_rewritten_network_runs_in_onnxruntime(row: tuple[str, dict[str, object]]) -> None:
    name, options = row
    check_in_onnxruntime(network_with(foreign(name, channels=C, **options), C))


def swapped(path: str, made: Callable[[], nn.Module]) -> Callable[[Any], None]:
    """Another module in the place of a child."""

    def change(module: Any) -> None:
        *parents, last = path.split(".")
        setattr(module.get_submodule(".".join(parents)), last, made())

    return change


def circular(path: str) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        conv = module.get_submodule(path)
        conv.padding_mode = "circular"
        conv._reversed_padding_repeated_twice = [conv.padding[0]] * 4

    return change


def answering(change_of: Callable[[Any, Tensor], Tensor]) -> Callable[[Any], None]:
    """Another function of the input and of what the source returns."""

    def change(module: Any) -> None:
        kind = type(module)
        own = kind.forward
        kind.forward = lambda self, x: change_of(own(self, x), x)

    return change


LOOK_ALIKES: list[tuple[str, Callable[[Any], None]]] = [
    ("cot", swapped("key_embed.2", nn.SiLU)),
    ("cot", circular("key_embed.0")),
    ("sk", swapped("softmax", lambda: nn.Softmax(1))),
    ("sk", circular("convs.1.conv")),
    ("parnet", swapped("silu", nn.ReLU)),
    ("parnet", swapped("sse.0", lambda: nn.AdaptiveMaxPool2d(1))),
    ("gsop", swapped("sigmoid", nn.Hardsigmoid)),
    ("gsop", swapped("relu", nn.SiLU)),
    ("srm", swapped("activation", nn.Hardsigmoid)),
    ("gct", answering(lambda y, x: y * (1 + 1e-9))),
    ("fca", swapped("fc.1", nn.SiLU)),
    ("fca", answering(lambda y, x: y + 1e-8 * x.flip(3))),
    ("encnet", swapped("encoding.2", nn.SiLU)),
    ("encnet", answering(lambda y, x: y + x)),
    ("bilinear", swapped("dimReduceLayer2.conv.relu", nn.Identity)),
    ("self_attention", answering(lambda y, x: y + 1e-6 * x.square())),
    ("s2", answering(lambda y, x: y.flip(2))),
]


@pytest.mark.parametrize("look_alike", LOOK_ALIKES, ids=lambda row: row[0])
def test_the_same_keys_with_other_mathematics_are_left_alone(look_alike: tuple[str, Callable[[Any], None]]) -> None:
    name, change = look_alike
    options = {"gsop": {"att_dim": 8}, "fca": {"reduction": 4}, "sk": {"min_hidden": 4}}.get(name, {})
    module = foreign(name, channels=C, **options)
    change(module)
    check_left_alone(network_with(module, C))


def test_a_hidden_epsilon_of_another_size_is_left_alone() -> None:
    module = foreign("gct", channels=C, epsilon=1e-2)
    del module.epsilon
    type(module).epsilon = property(lambda self: 1e-2)
    check_left_alone(network_with(module, C))


class ShiftsInPlace(nn.Module):
    """S2 as it is copied from one repository to the next: overlapping slices are written in place."""

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        source = foreign("s2", channels=C)
        self.mlp1, self.mlp2 = source.mlp1, source.mlp2
        self.split_attention = source.split_attention
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.mlp1(x if self.channels_last else x.permute(0, 2, 3, 1)).chunk(3, 3)
        for part, (one, other) in ((first, (1, 2)), (second, (2, 1))):
            for index, quarter in enumerate(part.chunk(4, 3)):
                axis = one if index < 2 else other
                low, high = (
                    quarter.narrow(axis, 0, quarter.shape[axis] - 1),
                    quarter.narrow(axis, 1, quarter.shape[axis] - 1),
                )
                if index % 2 == 0:
                    high.copy_(low)
                else:
                    low.copy_(high)
        mixed: Tensor = self.mlp2(self.split_attention(torch.stack([first, second, third], 1)))
        return mixed if self.channels_last else mixed.permute(0, 3, 1, 2)


class Permuted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


def test_an_s2_that_writes_in_place_is_read_as_a_shift_and_as_a_smear() -> None:
    readings = list(recognise(ShiftsInPlace(channels_last=False).double().eval()))
    assert [reading.layout for reading in readings] == ["b c h w", "b h w c"] * 2
    assert "semantics=shift" in readings[0].evidence[-1]
    network = network_with(ShiftsInPlace(channels_last=False), C)
    for semantics in ("shift", "smear"):
        (finding,) = rewrite(network, photo(), semantics=semantics).findings
        assert finding.replaced, finding.reason
        assert f"semantics={semantics}" in finding.evidence[-1]


def test_an_s2_of_maps_with_channels_last_is_replaced() -> None:
    network = randomised(nn.Sequential(Permuted(), ShiftsInPlace(channels_last=True)))
    result = rewrite(network, torch.randn(1, C, 5, 6), semantics="shift")
    assert result.findings[0].replaced, result.findings[0].reason
    assert "maps are b h w c" in result.findings[0].evidence


class ReturnsMore(nn.Module):
    """EncNet as its authors return it: a tuple, with the logits of the loss."""

    def __init__(self, kind: type, se_loss: bool) -> None:
        super().__init__()
        source = foreign("encnet", channels=C, codes=4, se_loss=se_loss, classes=3)
        self.encoding, self.fc, self.kind = source.encoding, source.fc, kind
        if se_loss:
            self.selayer = source.selayer

    def forward(self, x: Tensor) -> Any:
        code = self.encoding(x)
        returned = [torch.relu(x + x * self.fc(code)[:, :, None, None])]
        if hasattr(self, "selayer"):
            returned.append(self.selayer(code))
        return self.kind(returned)


class TakesTheMap(nn.Module):
    """What it gets must be a sequence, whose last part it returns as well."""

    def forward(self, parts: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(parts, (tuple, list)):
            raise TypeError("no sequence")
        return parts[0], parts[-1]


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("se_loss", [True, False])
def test_an_encnet_that_returns_several_tensors_still_does(kind: type, se_loss: bool) -> None:
    network = randomised(nn.Sequential(ReturnsMore(kind, se_loss), TakesTheMap()))
    result = rewrite(network, torch.randn(2, C, 5, 6))
    assert result.findings[0].replaced, result.findings[0].reason
    assert result.whole.error <= 1e-11


class Odd(nn.Module):
    """Names that stand for something else."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))
        self.gamma = nn.Parameter(torch.zeros(3))
        self.beta = nn.Linear(2, 2)
        self.wq = self.wk = self.wv = nn.Identity()
        self.cfc, self.bn = nn.LazyLinear(3), nn.Identity()
        self.epsilon = "small"

    def get_extra_state(self) -> object:
        return {"not": "a tensor"}

    def set_extra_state(self, state: object) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("raise"):
            raise RuntimeError(name)
        return super().__getattr__(name)


def test_modules_with_odd_members_are_not_recognised_and_nothing_is_raised() -> None:
    assert list(recognise(Odd())) == []


def test_a_state_of_another_shape_is_not_loaded() -> None:
    assert loaded("parnet", {"channels": C + 1}, foreign("parnet", channels=C)) is None
    assert loaded("parnet", {"channels": -1}, foreign("parnet", channels=C)) is None
