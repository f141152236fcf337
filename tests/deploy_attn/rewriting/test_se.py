"""SE and its kin under names of others: found, replaced and exact; look-alikes are left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import booleans, integers
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.modules.se import SEExport
from deploy_attn.rewriting.families.se import recognise
from deploy_attn.rewriting.rewrite import rewrite
from tests.deploy_attn.rewriting.stem import (
    check_in_onnxruntime,
    check_left_alone,
    check_replaced,
    network_with,
    photo,
    randomised,
)
from tests.torchvision_here import torchvision_here

C, H = 24, 6


class Linears(nn.Module):
    """The blogs' version; keys `fc.0`, `fc.2`."""

    def __init__(self, bias: bool, gate: nn.Module) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(C, H, bias), nn.ReLU(inplace=True), nn.Linear(H, C, bias), gate)

    def forward(self, x: Tensor) -> Any:
        weights = self.fc(self.avg_pool(x).view(x.shape[0], C)).view(x.shape[0], C, 1, 1)
        return x * weights.expand_as(x)


class Functions(nn.Module):
    """1x1 convolutions, and functions in forward; the class of a subtype says which."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze_layer = nn.Conv2d(C, H, 1)
        self.excite_layer = nn.Conv2d(H, C, 1, bias=False)

    def hidden(self, x: Tensor) -> Tensor:
        return functional.relu(x)

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def joined(self, x: Tensor, gate: Tensor) -> Tensor:
        return x * gate

    def pooled(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, x.size()[2:])

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(x, self.gate(self.excite_layer(self.hidden(self.squeeze_layer(self.pooled(x))))))


class ReLU6Gate(Functions):
    def gate(self, x: Tensor) -> Tensor:
        return functional.relu6(x + 3.0) / 6.0


class ClampGate(Functions):
    def gate(self, x: Tensor) -> Tensor:
        return (x / 6 + 0.5).clamp(0, 1)


class HardGate(Functions):
    def hidden(self, x: Tensor) -> Tensor:
        return functional.silu(x)

    def gate(self, x: Tensor) -> Tensor:
        return functional.hardsigmoid(x)


class WithoutHidden(Functions):
    def hidden(self, x: Tensor) -> Tensor:
        return x


class GateOnly(Functions):
    def joined(self, x: Tensor, gate: Tensor) -> Tensor:
        return gate


class FlatGate(Functions):
    def joined(self, x: Tensor, gate: Tensor) -> Tensor:
        return gate.flatten(1)


class MeanAndMax(Functions):
    add_maxpool = True

    def pooled(self, x: Tensor) -> Tensor:
        return (x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True)) / 2


class GateFunction(nn.Module):
    """Its gate is a function kept as an attribute."""

    def __init__(self, gate_fn: Callable[..., Any]) -> None:
        super().__init__()
        self.gate_fn = gate_fn
        self.conv_reduce = nn.Conv2d(C, H, 1)
        self.act1 = nn.ReLU(inplace=True)
        self.conv_expand = nn.Conv2d(H, C, 1)

    def forward(self, x: Tensor) -> Any:
        pooled = x.mean((2, 3), keepdim=True)
        return x * self.gate_fn(self.conv_expand(self.act1(self.conv_reduce(pooled))))


class OwnHardSigmoid(nn.Module):
    """clip((x + bias) / divisor, 0, 1)."""

    def __init__(self, bias: float, divisor: float) -> None:
        super().__init__()
        self.bias, self.divisor = bias, divisor

    def forward(self, x: Tensor) -> Tensor:
        x = (x + self.bias) / self.divisor
        return x.clamp_(0, 1)


class Block(nn.Module):
    """A convolution and its activation."""

    def __init__(self, inputs: int, outputs: int, activate: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.activate(self.conv(x))
        return activated


class Blocks(nn.Module):
    """Keys `conv1.conv`, `conv2.conv`."""

    def __init__(self, gate: nn.Module, return_weight: bool) -> None:
        super().__init__()
        self.return_weight = return_weight
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = Block(C, H, nn.ReLU())
        self.conv2 = Block(H, C, gate)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(self.global_avgpool(x)))
        return out if self.return_weight else x * out


class TwoNorms(nn.Module):
    """A Sequential with a norm after each layer, applied by its class."""

    def __init__(self) -> None:
        super().__init__()
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(C, H, 1, bias=False),
            nn.BatchNorm2d(H, eps=1e-2),
            nn.ReLU(inplace=True),
            nn.Conv2d(H, C, 1),
            nn.BatchNorm2d(C),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Any:
        return x * self.se(x)


class Square(nn.Module):
    """As many hidden channels as channels, the second layer registered first."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(C, C)
        self.first = nn.Linear(C, C)
        self.gate, self.hidden = nn.Sigmoid(), nn.Tanh()

    def forward(self, x: Tensor) -> Any:
        return x * self.gate(self.last(self.hidden(self.first(x.mean((2, 3))))))[:, :, None, None]


class OneLayer(nn.Module):
    """Key `fc`."""

    def __init__(self, bias: bool, act: nn.Module) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Conv2d(C, C, 1, bias=bias)
        self.act = act

    def forward(self, x: Tensor) -> Any:
        return x * self.act(self.fc(self.pool(x)))


class Listed(nn.Module):
    """Its layers are in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList([nn.Conv2d(C, H, 1), nn.ReLU(), nn.Conv2d(H, C, 1), nn.Sigmoid()])
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Any:
        gate = self.pool(x)
        for step in self.steps:
            gate = step(gate)
        return x * gate


class AllListed(Listed):
    def __init__(self) -> None:
        super().__init__()
        self.steps.insert(0, self.pool)


class ChannelsLast(nn.Module):
    """Takes `b h w c`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(C, H), nn.Linear(H, C)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((1, 2), keepdim=True)))))


class Turned(nn.Module):
    """b c h w -> b h w c, or back."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order).contiguous()


PLAIN_GATE = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, H, 1), nn.SiLU(), nn.Conv2d(H, C, 1), nn.Sigmoid())


@pytest.mark.parametrize(
    ("module", "name", "evidence"),
    [
        (Linears(False, nn.Sigmoid()), "se", "keys fc.0.weight 6x24, fc.2.weight 24x6"),
        (Linears(True, nn.Sigmoid()), "se", "Sigmoid (child fc.3)"),
        (Linears(True, nn.Hardsigmoid(inplace=True)), "se", "Hardsigmoid (child fc.3)"),
        (Functions(), "se", "ReLU (relu in forward)"),
        (ReLU6Gate(), "se", "Hardsigmoid (a clamp in forward)"),
        (ClampGate(), "se", "Hardsigmoid (a clamp in forward)"),
        (HardGate(), "se", "Hardsigmoid (hardsigmoid in forward)"),
        (WithoutHidden(), "se", "Sigmoid (sigmoid in forward)"),
        (GateOnly(), "se", "returns the gate, b c 1 1"),
        (FlatGate(), "se", "returns the gate, b c"),
        (MeanAndMax(), "se", "pools by the half sum of mean and max"),
        (GateFunction(torch.sigmoid), "se", "Sigmoid (attribute gate_fn)"),
        (GateFunction(lambda x: functional.relu6(x + 3) / 6), "se", "Hardsigmoid (attribute gate_fn)"),
        (Blocks(nn.Sigmoid(), False), "se", "ReLU (child conv1.activate)"),
        (Blocks(nn.Sigmoid(), True), "se", "returns the gate, b c 1 1"),
        (Blocks(OwnHardSigmoid(3, 6), False), "se", "Hardsigmoid (child conv2.activate)"),
        (Blocks(OwnHardSigmoid(1, 2), False), "se", "OwnHardSigmoid (child conv2.activate)"),
        (TwoNorms(), "se", "Hardsigmoid (child se.6)"),
        (Square(), "se", "Tanh (child hidden)"),
        (PLAIN_GATE, "se", "returns the gate, b c 1 1"),
        (Listed(), "se", "ReLU (child steps.1)"),
        (AllListed(), "se", "ReLU (child steps.2)"),
        (OneLayer(True, nn.Sigmoid()), "effective_se", "keys fc.weight 24x24x1x1, fc.bias 24"),
        (OneLayer(False, nn.Hardsigmoid()), "effective_se", "Hardsigmoid (child act)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_variant_is_found_under_a_foreign_name_and_replaced(module: nn.Module, name: str, evidence: str) -> None:
    result = check_replaced(network_with(module, C), name)
    assert evidence in result.findings[0].evidence
    assert isinstance(result.model.get_submodule("attention"), SEExport)


@settings(max_examples=15, deadline=None)
@given(
    channels=integers(1, 40),
    hidden=integers(1, 40),
    bias=booleans(),
    height=integers(1, 9),
    width=integers(1, 9),
    batch=integers(1, 3),
)
def test_any_number_of_channels_is_taken(
    channels: int, hidden: int, bias: bool, height: int, width: int, batch: int
) -> None:
    layers = nn.Linear(channels, hidden, bias), nn.ReLU(), nn.Linear(hidden, channels, bias), nn.Sigmoid()
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *layers)
    result = rewrite(nn.Sequential(randomised(module)), torch.randn(batch, channels, height, width))
    assert [finding.replaced for finding in result.findings] == [True]


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
@pytest.mark.parametrize("dynamic_size", [False, True])
def test_every_engine_and_an_open_size_are_served(engine: str, dynamic_size: bool) -> None:
    check_replaced(network_with(TwoNorms(), C), "se", engine=engine, dynamic_size=dynamic_size)


def test_maps_with_channels_last_are_taken_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(3, C, 1), Turned(0, 2, 3, 1), ChannelsLast(), Turned(0, 3, 1, 2))
    result = rewrite(randomised(network), photo())
    (finding,) = result.findings
    assert finding.replaced, finding.reason
    assert "pools by the mean of b h w c" in finding.evidence
    assert result.whole.error <= 1e-11


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "act_layer": "silu"},
        {"add_maxpool": True, "norm_layer": nn.BatchNorm2d},
        {"act_layer": "leaky_relu", "gate_layer": "hard_sigmoid"},
        {"act_layer": "hard_swish", "gate_layer": nn.Hardsigmoid},
    ],
    ids=str,
)
def test_timms_module_is_replaced_with_all_its_options(options: dict[str, Any]) -> None:
    torchvision_here()
    from timm.layers.squeeze_excite import SEModule

    module = SEModule(C, rd_channels=H, **options)
    result = check_replaced(network_with(module, C), "se")
    assert result.findings[0].evidence[0] == "type timm.layers.squeeze_excite.SEModule"


def test_the_modules_of_timm_and_torchvision_are_known_by_their_types() -> None:
    torchvision = torchvision_here()
    from timm.layers.squeeze_excite import EffectiveSEModule, SqueezeExciteCl
    from timm.models import _efficientnet_blocks as blocks
    from timm.models import senet

    modules = {
        "effective_se": [EffectiveSEModule(C), EffectiveSEModule(C, add_maxpool=True, gate_layer="sigmoid")],
        "se": [
            blocks.SqueezeExcite(C, act_layer=nn.SiLU),
            blocks.SqueezeExcite(C, gate_layer="hard_sigmoid"),
            senet.SEModule(C, 4),
            torchvision.ops.SqueezeExcitation(C, H, activation=nn.SiLU),
            torchvision.ops.SqueezeExcitation(C, H, scale_activation=nn.Hardsigmoid),
        ],
    }
    for name, variants in modules.items():
        for module in variants:
            result = check_replaced(network_with(module, C), name)
            assert result.findings[0].evidence[0].startswith("type ")
    network = nn.Sequential(nn.Conv2d(3, C, 1), Turned(0, 2, 3, 1), SqueezeExciteCl(C), Turned(0, 3, 1, 2))
    assert [finding.replaced for finding in rewrite(randomised(network), photo()).findings] == [True]


class Squared(Functions):
    def joined(self, x: Tensor, gate: Tensor) -> Tensor:
        return x * gate * gate


class Residual(Functions):
    def joined(self, x: Tensor, gate: Tensor) -> Tensor:
        return x + x * gate


class Doubled(Functions):
    def gate(self, x: Tensor) -> Tensor:
        return 2 * torch.sigmoid(x)


class OtherPool(Functions):
    def pooled(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True)


class Half(Functions):
    def pooled(self, x: Tensor) -> Tensor:
        return x[:, :, ::2].mean((2, 3), keepdim=True)


class Leaky(Functions):
    def hidden(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(x, 1e-3) + functional.relu(x) * 0


class KerasGate(Functions):
    def gate(self, x: Tensor) -> Tensor:
        return (0.2 * x + 0.5).clamp(0, 1)


class HiddenTwice(Functions):
    def hidden(self, x: Tensor) -> Tensor:
        return functional.relu(x) ** 2


class NormAfterHidden(nn.Module):
    """The keys of a norm before the function."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.bn, self.fc2 = nn.Conv2d(C, H, 1), nn.BatchNorm2d(H), nn.Conv2d(H, C, 1)
        self.act, self.gate = nn.ReLU(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Any:
        return x * self.gate(self.fc2(self.bn(self.act(self.fc1(x.mean((2, 3), keepdim=True))))))


class OtherEps(NormAfterHidden):
    def forward(self, x: Tensor) -> Any:
        hidden = self.fc1(x.mean((2, 3), keepdim=True))
        mean, variance = self.bn.running_mean, self.bn.running_var
        hidden = functional.batch_norm(hidden, mean, variance, self.bn.weight, self.bn.bias, eps=1e-3)
        return x * self.gate(self.fc2(self.act(hidden)))


class Swapped(Linears):
    """The gate inside, the hidden function outside."""

    def forward(self, x: Tensor) -> Any:
        first, hidden, last, gate = self.fc
        return x * hidden(last(gate(first(x.mean((2, 3))))))[:, :, None, None]


class LastBitOfLinears(Linears):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * (1 + 1e-9)


@pytest.mark.parametrize(
    "module",
    [
        Squared(),
        Residual(),
        Doubled(),
        OtherPool(),
        Half(),
        Leaky(),
        KerasGate(),
        HiddenTwice(),
        NormAfterHidden(),
        OtherEps(),
        Swapped(False, nn.Sigmoid()),
        LastBitOfLinears(False, nn.Sigmoid()),
    ],
    ids=lambda module: type(module).__name__,
)
def test_the_same_keys_with_other_mathematics_are_left_alone(module: nn.Module) -> None:
    check_left_alone(network_with(module, C))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_empty_hidden_layer_is_refused_with_advice() -> None:
    empty = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 0), nn.Linear(0, C), nn.Sigmoid())
    (finding,) = rewrite(nn.Sequential(empty), torch.randn(1, C, 5, 6)).findings
    assert not finding.replaced
    assert "reduce the channels less" in str(finding.reason)


class Wrapper(nn.Module):
    """Nothing but SE and a function around it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Linears(False, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.inner(x)).mean((2, 3), keepdim=True)


def test_only_the_module_itself_is_found_and_not_what_holds_it() -> None:
    result = rewrite(nn.Sequential(nn.Sequential(randomised(Wrapper()))), torch.randn(1, C, 5, 6))
    assert [(finding.paths, finding.replaced) for finding in result.findings] == [(("0.0.inner",), True)]


class Far(Functions):
    """A limit that no example meets."""

    def hidden(self, x: Tensor) -> Tensor:
        return torch.relu(x).clamp(max=1e9)


def test_a_limit_that_examples_could_miss_is_not_replaced() -> None:
    (finding,) = rewrite(network_with(Far(), C), photo()).findings
    assert not finding.replaced
    assert "its forward has a clamp" in str(finding.reason)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.jit.script(Functions()),
        lambda: torch.jit.trace(Functions(), torch.ones(1, C, 5, 5)),
        lambda: torch.fx.symbolic_trace(OneLayer(True, nn.Sigmoid())),
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.LazyConv2d(H, 1), nn.Sigmoid()),
        lambda: nn.MultiheadAttention(C, 2),
        lambda: nn.Bilinear(2, 2, 1),
        lambda: nn.ModuleList([nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, C, 1), nn.Sigmoid()]),
        lambda: GateFunction(print),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_no_module_makes_a_recogniser_raise_or_run(make: Callable[[], nn.Module], capsys: Any) -> None:
    module = make()
    read = [match.name for part in module.modules() for match in recognise(part)]
    assert set(read) <= {"effective_se"}
    assert capsys.readouterr().out == ""


class Mlp(nn.Module):
    """Two layers without a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Conv2d(C, H, 1), nn.Sigmoid(), nn.Conv2d(H, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


@pytest.mark.parametrize(
    "module",
    [
        Mlp(),
        nn.Sequential(nn.Conv2d(C, C, 1), nn.Sigmoid()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, C, 1)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, H, 1), nn.Sigmoid()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, C, 3, padding=1), nn.Sigmoid()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, C, 1), nn.GroupNorm(2, C), nn.Sigmoid()),
    ],
)
def test_other_modules_are_not_listed(module: nn.Module) -> None:
    assert rewrite(network_with(module, C), photo()).findings == ()


@pytest.mark.parametrize("module", [TwoNorms(), HardGate(), MeanAndMax(), OneLayer(True, nn.Hardsigmoid())])
def test_the_graph_of_a_variant_is_right_at_opset_13(module: nn.Module) -> None:
    check_in_onnxruntime(network_with(module, C))
