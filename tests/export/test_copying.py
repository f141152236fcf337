"""Holds that copies share nothing with what they were made of, and that what cannot be proven is refused."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import nn

from deploy_attn.export.copying import check_weights, copied, in_float64, with_other_modules, without_wrappers
from deploy_attn.jetson.errors import BadRequest


def _gate() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_a_copy_has_weights_of_its_own_and_keeps_what_is_shared() -> None:
    tied = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    tied[1].weight = tied[0].weight
    network = nn.Sequential(_gate(), *tied)
    network.append(network[0])
    plain = in_float64(network.train())
    assert plain.get_submodule("0") is plain.get_submodule("3")
    assert plain.get_parameter("1.weight") is plain.get_parameter("2.weight")
    assert network.training and not plain.training
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    assert {value.dtype for value in plain.parameters()} == {torch.float64}
    assert not {value.data_ptr() for value in network.parameters()} & {value.data_ptr() for value in plain.parameters()}


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_any_type_and_order_of_memory_is_widened_exactly(kind: torch.dtype) -> None:
    network = nn.Sequential(_gate(), nn.Conv2d(3, 4, 3)).to(kind).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = in_float64(network)
    assert all(value.is_contiguous() for value in plain.parameters())
    for before, after in zip(network.parameters(), plain.parameters()):
        assert torch.equal(before.double(), after)


def test_values_that_a_run_left_behind_do_not_stop_a_copy() -> None:
    network = _gate()
    network.seen = [network[0](torch.zeros(1, 3, 2, 2))]  # type: ignore[index,assignment]
    with pytest.raises(RuntimeError):
        copy.deepcopy(network)
    seen: Any = copied(network).seen
    assert torch.equal(seen[0], network.seen[0])  # type: ignore[index]
    assert seen[0].data_ptr() != network.seen[0].data_ptr()  # type: ignore[index]


def test_other_modules_stand_in_a_copy_that_has_the_same_weights() -> None:
    network = nn.Sequential(_gate(), nn.ReLU())
    network.append(network[1])
    other = nn.SiLU()
    changed = with_other_modules(network, {network[1]: other})
    assert changed.get_submodule("1") is changed.get_submodule("2") is other
    assert isinstance(network[1], nn.ReLU)
    assert all(first is second for first, second in zip(network.parameters(), changed.parameters(), strict=True))
    assert all(first is second for first, second in zip(network.buffers(), changed.buffers(), strict=True))


def test_only_what_is_wrapped_is_copied_to_take_wrappers_off() -> None:
    plain, wrapped = _gate(), nn.Sequential(nn.DataParallel(_gate()))
    assert without_wrappers(plain) is plain
    assert isinstance(without_wrappers(wrapped).get_submodule("0"), nn.Sequential)
    assert isinstance(wrapped[0], nn.DataParallel)


def test_a_distributed_network_is_taken_out_of_its_wrapper() -> None:
    wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)  # without its processes
    nn.Module.__init__(wrapped)
    wrapped.module = _gate()
    assert isinstance(copied(wrapped), nn.Sequential)


def _compiled(network: nn.Module) -> nn.Module:
    compiled: Any = torch.compile(network, backend="eager")
    return cast("nn.Module", compiled)


class _Compiles(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = _compiled(nn.Sequential(nn.DataParallel(_gate()), nn.ReLU()))
        self.again = self.first
        self.last = nn.Sigmoid()
        self.last.compile(backend="eager")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.again(x))
        return result


@pytest.mark.parametrize("wrap", [lambda x: x, _compiled, nn.DataParallel], ids=["inside", "compiled", "parallel"])
def test_wrappers_of_compilers_and_devices_are_taken_off(wrap: Callable[[nn.Module], nn.Module]) -> None:
    network = wrap(_Compiles())
    plain = copied(network)
    kinds = ["_Compiles", "Sequential", "Sequential", "Conv2d", "BatchNorm2d", "ReLU", "Sigmoid"]
    assert [type(module).__name__ for module in plain.modules()] == kinds
    assert plain.first is plain.again
    assert plain.last._compiled_call_impl is None  # type: ignore[union-attr]
    assert any("_orig_mod" in name for name, _ in network.named_modules())


def test_what_cannot_be_copied_is_named() -> None:
    network = _gate()
    network.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(BadRequest, match=r"cannot be copied.*lock"):
        copied(network)


def _meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1))


def _complex() -> nn.Module:
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1))
    network[1].register_buffer("phase", torch.zeros(3, dtype=torch.complex64))
    return network


def _quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.ReLU(), nn.Linear(4, 4)))
    return cast("nn.Module", quantised)


def _quantised_buffer() -> nn.Module:
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network[1].register_buffer("table", torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8))
    return network


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (_meta, r"1 \(Conv2d\) has no weights: they are on the device 'meta'"),
        (_complex, r"1 \(Conv2d\) has complex weights"),
        (_quantised, r"1 \(Linear\) is quantised"),
        (_quantised_buffer, r"1 \(Conv2d\) is quantised"),
        (
            lambda: nn.Sequential(nn.ReLU(), nn.LazyConv2d(4, 1)),
            r"1 \(LazyConv2d\) has no weights before its first run",
        ),
    ],
    ids=["meta", "complex", "quantised", "a quantised buffer", "lazy"],
)
def test_weights_that_no_proof_can_be_had_of_are_refused(build: Callable[[], nn.Module], said: str) -> None:
    network = build()
    with pytest.raises(BadRequest, match=said):
        check_weights(network)
    with pytest.raises(BadRequest, match=said):
        in_float64(network)
