"""Holds that a checkpoint loads strictly, runs nothing, and leaves the module as it was where it is refused."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import deploy_attn
from deploy_attn.export.checkpoint import load_checkpoint
from deploy_attn.jetson.errors import BadRequest

State = dict[str, Tensor]


class _Network(nn.Module):
    """Weights, a bias, and the float and integer buffers of a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.norm = nn.BatchNorm2d(2)


def _network(seed: int = 0) -> _Network:
    torch.manual_seed(seed)
    return _Network()


def _state(seed: int = 1) -> State:
    return dict(_network(seed).state_dict())


def _saved(folder: Path, content: object, name: str = "weights.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def _loaded(file: Path) -> State:
    network = _network()
    load_checkpoint(network, file)
    return dict(network.state_dict())


def _same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def _refusal(file: Path, network: nn.Module | None = None) -> str:
    """The message of the refusal, after a check that the module is as it was."""
    network = network or _network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(BadRequest) as caught:
        load_checkpoint(network, file)
    assert _same(before, network.state_dict())
    assert str(file) in str(caught.value)
    return str(caught.value)


def _prefixed(state: State, prefix: str = "module.") -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: state, id="bare"),
        pytest.param(lambda state: OrderedDict(state), id="an ordered dict"),
        pytest.param(lambda state: {"state_dict": state, "epoch": 3}, id="state_dict"),
        pytest.param(lambda state: {"model": state, "optimizer": {"lr": 0.1}}, id="model"),
        pytest.param(lambda state: {"model_state_dict": state, "loss": 0.1}, id="model_state_dict"),
        pytest.param(_prefixed, id="DataParallel"),
        pytest.param(lambda state: {"state_dict": _prefixed(state)}, id="DataParallel, wrapped"),
        pytest.param(lambda state: {"net": state}, id="net"),
        pytest.param(lambda state: {"ema": {"module": state}}, id="module"),
        pytest.param(lambda state: {"ema": _prefixed(state), "epoch": 3}, id="ema"),
        pytest.param(lambda state: {"model_ema": state}, id="model_ema"),
        pytest.param(lambda state: {"model": {"state_dict": state, "epoch": 3}}, id="two wrappers"),
        pytest.param(lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)}, id="options in a Namespace"),
        pytest.param(lambda state: {**_prefixed(state), "n_averaged": torch.tensor(4)}, id="AveragedModel"),
        pytest.param(lambda state: _prefixed(state, "model."), id="a training class"),
        pytest.param(
            lambda state: _prefixed(_prefixed(state, "_orig_mod."), "model.net."), id="compiled, in two classes"
        ),
        pytest.param(
            lambda state: {key.replace("conv.", "conv._orig_mod.module."): value for key, value in state.items()},
            id="a child that was compiled and parallel",
        ),
        pytest.param(
            lambda state: {"model": {"another.weight": torch.ones(1)}, "ema": state}, id="another model beside it"
        ),
    ],
)
@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights"])
def test_a_pytorch_file_is_loaded_wherever_its_state_dict_lies(
    tmp_path: Path, name: str, wrap: Callable[[State], object]
) -> None:
    assert _same(_loaded(_saved(tmp_path, wrap(_state()), name)), _state())


@pytest.mark.parametrize("wrap", [dict, _prefixed], ids=["bare", "DataParallel"])
def test_a_safetensors_file_is_loaded(tmp_path: Path, wrap: Callable[[State], State]) -> None:
    save_file(wrap(_state()), tmp_path / "weights.safetensors")
    assert _same(_loaded(tmp_path / "weights.safetensors"), _state())


def test_a_file_in_the_old_format_is_loaded(tmp_path: Path) -> None:
    torch.save(_state(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert _same(_loaded(tmp_path / "old.pt"), _state())


@pytest.mark.parametrize("name", deploy_attn.available())
def test_every_catalogue_module_takes_its_own_checkpoint(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    trained = deploy_attn.create(name, channels=16).state_dict()
    module = deploy_attn.create(name, channels=16)
    load_checkpoint(module, _saved(tmp_path, trained))
    assert _same(module.state_dict(), trained)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_another_width_are_loaded_by_value(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in _state().items()}
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    loaded = _loaded(file)
    assert loaded["conv.weight"].dtype == torch.float32
    assert _same(loaded, {key: value.to(loaded[key].dtype) for key, value in state.items()})


def test_a_module_with_a_child_called_module_takes_its_own_checkpoint(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = _network()

    wrapper = Wrapper()
    state = _prefixed(_state())
    load_checkpoint(wrapper, _saved(tmp_path, state))
    assert _same(wrapper.state_dict(), state)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_every_missing_unexpected_and_misshapen_key_is_listed(tmp_path: Path, suffix: str) -> None:
    state = _state()
    del state["conv.bias"], state["norm.running_var"]
    state["norm.weight"] = torch.ones(5)
    state["conv.weight"] = torch.ones(2, 3)
    state["head.weight"], state["head.bias"] = torch.ones(4, 2), torch.ones(4)
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    lines = {line.strip() for line in _refusal(file).splitlines()}
    assert {
        "missing: conv.bias (2,)",
        "missing: norm.running_var (2,)",
        "unexpected: head.weight (4, 2)",
        "unexpected: head.bias (4,)",
        "shape: norm.weight is (5,), the module has (2,)",
        "shape: conv.weight is (2, 3), the module has (2, 3, 1, 1)",
    } <= lines


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(lambda state: state.pop("conv.bias"), "missing: conv.bias", id="missing"),
        pytest.param(lambda state: state.update(more=torch.ones(1)), "unexpected: more", id="unexpected"),
        pytest.param(lambda state: state.update({"conv.bias": torch.ones(3)}), "shape: conv.bias", id="misshapen"),
        pytest.param(lambda state: state.clear(), "missing: conv.weight", id="empty"),
        pytest.param(
            lambda state: state.update({"teacher.conv.bias": state.pop("conv.bias")}),
            "unexpected: teacher.conv.bias",
            id="a prefix on one key only",
        ),
        pytest.param(
            lambda state: state.update(
                {**{f"module.{key}": state.pop(key) for key in list(state)}, "epoch": torch.tensor(1)}
            ),
            "unexpected: epoch ()",
            id="a prefix on every key but one",
        ),
    ],
)
def test_one_key_that_does_not_match_is_enough(tmp_path: Path, change: Callable[[State], object], problem: str) -> None:
    state = _state()
    change(state)
    assert problem in _refusal(_saved(tmp_path, state))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_tensors_that_hold_no_numbers_are_named(tmp_path: Path, suffix: str, value: float) -> None:
    state = _state()
    state["conv.weight"][1, 2] = value
    state["norm.running_mean"][0] = value
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    assert "holds NaN or Inf in: conv.weight, norm.running_mean." in _refusal(file)


def test_a_float64_weight_beyond_float32_is_refused(tmp_path: Path) -> None:
    state = _state()
    state["conv.bias"] = torch.tensor([1e39, 1.0], dtype=torch.float64)
    assert "conv.bias" in _refusal(_saved(tmp_path, state))


class _Touches:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def _save_zip(content: object, file: Path) -> None:
    torch.save(content, file)


def _save_old(content: object, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def _save_pickle(content: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize(
    "around",
    [
        pytest.param(lambda trap: trap, id="alone"),
        pytest.param(lambda trap: {**_state(), "conv.weight": trap}, id="as a tensor"),
        pytest.param(lambda trap: {"state_dict": _state(), "epoch": trap}, id="beside the state_dict"),
        pytest.param(lambda trap: [1, {"x": (trap,)}], id="deep inside"),
    ],
)
@pytest.mark.parametrize("save", [_save_zip, _save_old, _save_pickle])
def test_a_file_that_would_run_code_is_refused_and_the_code_is_not_run(
    tmp_path: Path, save: Callable[[object, Path], None], around: Callable[[object], object]
) -> None:
    trap = tmp_path / "trap"
    save(around(_Touches(trap)), tmp_path / "weights.pt")
    message = _refusal(tmp_path / "weights.pt")
    assert not trap.exists()
    assert "could run code" in message
    assert "Save only the state_dict" in message


def test_the_trap_of_these_tests_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Touches(tmp_path / "trap")))
    assert (tmp_path / "trap").exists()


def test_a_pickle_under_the_name_of_a_safetensors_file_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    _save_zip(_Touches(trap), tmp_path / "weights.safetensors")
    assert "cannot be read as safetensors" in _refusal(tmp_path / "weights.safetensors")
    assert not trap.exists()


def test_the_weights_are_taken_before_their_moving_average(tmp_path: Path) -> None:
    assert _same(_loaded(_saved(tmp_path, {"ema": _state(2), "model": _state(1)})), _state(1))


def test_counters_that_only_training_reads_may_be_missing(tmp_path: Path) -> None:
    state = {key: value for key, value in _state().items() if not key.endswith("num_batches_tracked")}
    assert _same(_loaded(_saved(tmp_path, state)), _state())


def test_prefixes_are_not_taken_off_where_two_keys_would_become_one(tmp_path: Path) -> None:
    state = {**_prefixed(_state()), "conv.weight": torch.zeros(2, 3, 1, 1)}
    assert "unexpected: module.conv.weight" in _refusal(_saved(tmp_path, state))


def test_an_archive_of_torchscript_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "weights.pt")
        assert "torch.save(torch.jit.load(...).state_dict(), ...)" in _refusal(tmp_path / "weights.pt")


def test_of_many_keys_the_first_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    names = [f"layer{index}.weight" for index in range(40)]
    module = nn.ModuleDict({name.replace(".weight", ""): nn.Linear(1, 1, bias=False) for name in names})
    state = {**{name.replace("layer", "stage"): torch.ones(1, 1) for name in names[:30]}, names[39]: torch.ones(1, 1)}
    message = _refusal(_saved(tmp_path, state), module)
    assert "of its 40 keys 1 are in the file, which holds 31, in the same shape" in message
    assert "missing: layer7.weight (1, 1), nearest in the file: stage7.weight" in message
    assert "missing: and 27 more" in message
    assert "unexpected: and 18 more" in message
    assert len(message.splitlines()) == 2 + 13 + 13


def test_a_whole_saved_module_is_refused_and_its_class_is_named(tmp_path: Path) -> None:
    assert "torch.nn.modules.linear.Linear" in _refusal(_saved(tmp_path, nn.Linear(2, 2)))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param([torch.ones(1)], "found list", id="a list"),
        pytest.param(torch.ones(3), "found Tensor", id="a tensor"),
        pytest.param(None, "found NoneType", id="nothing"),
        pytest.param("conv.weight", "found str", id="text"),
        pytest.param({"epoch": 3, "loss": 0.5}, "found keys epoch, loss", id="no tensors"),
        pytest.param({"model": {"epoch": 3}}, "found keys model", id="a wrapper of something else"),
        pytest.param({"optimizer": {"conv.bias": torch.ones(2)}}, "found keys optimizer", id="another wrapper"),
    ],
)
def test_a_file_without_a_state_dict_is_refused_and_what_was_found_is_named(
    tmp_path: Path, content: object, found: str
) -> None:
    message = _refusal(_saved(tmp_path, content))
    assert found in message
    assert "state_dict, model, model_state_dict" in message


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({0: torch.ones(1)}, id="integer keys"),
        pytest.param({"model": {("conv", "bias"): torch.ones(2)}}, id="keys that are pairs"),
    ],
)
def test_keys_that_are_no_names_are_refused(tmp_path: Path, content: object) -> None:
    _refusal(_saved(tmp_path, content))


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(lambda weight: weight.to_sparse(), id="sparse"),
        pytest.param(lambda weight: weight.to(torch.float8_e4m3fn), id="float8"),
        pytest.param(lambda weight: weight.to("meta"), id="without data"),
        pytest.param(lambda weight: weight.to(torch.complex64), id="complex"),
    ],
)
def test_a_tensor_of_a_kind_that_no_module_here_has_is_refused_by_name(
    tmp_path: Path, odd: Callable[[Tensor], Tensor]
) -> None:
    state = _state()
    state["conv.weight"] = odd(state["conv.weight"])
    assert "conv.weight" in _refusal(_saved(tmp_path, state))


BROKEN = [
    pytest.param(b"", id="empty"),
    pytest.param(b"hello world", id="text"),
    pytest.param(b"<!DOCTYPE html><html>", id="a web page"),
    pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(64), id="a picture"),
    pytest.param(bytes(range(256)), id="bytes"),
    pytest.param(b"PK\x03\x04" + bytes(100), id="half an archive"),
]


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize(
    ("suffix", "why"), [(".pt", "cannot be read as a PyTorch file"), (".safetensors", "cannot be read as safetensors")]
)
def test_a_file_that_is_no_checkpoint_is_refused_as_unreadable(
    tmp_path: Path, suffix: str, why: str, content: bytes
) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    message = _refusal(file)
    assert why in message
    assert "run code" not in message


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_that_ends_too_early_is_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    save_file(_state(), file) if suffix == ".safetensors" else torch.save(_state(), file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    assert "cannot be read" in _refusal(file)


@pytest.mark.parametrize("name", ["missing.pt", "missing.safetensors"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    assert "no such file" in _refusal(tmp_path / name)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert "a folder, not a file" in _refusal(tmp_path)


def test_loading_keeps_the_parameters_themselves_and_their_gradients(tmp_path: Path) -> None:
    network = _network()
    parameters: dict[str, Any] = dict(network.named_parameters())
    load_checkpoint(network, _saved(tmp_path, _state()))
    assert all(value is parameters[key] and value.requires_grad for key, value in network.named_parameters())


def test_of_several_that_do_not_fit_the_nearest_is_told_of(tmp_path: Path) -> None:
    near = {**_state(), "more": torch.ones(1)}
    message = _refusal(_saved(tmp_path, {"model": {"another.weight": torch.ones(1)}, "ema": near}))
    assert "unexpected: more (1,)" in message
    assert "missing" not in message
