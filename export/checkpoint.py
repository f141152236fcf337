"""Checkpoints: untrusted files in, a strictly matching state_dict out."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.jetson.errors import BadRequest, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_PARALLEL_PREFIX = "module."


def load_checkpoint(module: nn.Module, file: Path) -> None:
    """Loads a checkpoint into a module, strictly.

    Takes .safetensors, and PyTorch files with a state_dict, bare or under
    `state_dict`, `model` or `model_state_dict`, with or without the `module.`
    prefix of DataParallel. Nothing in the file is executed. The module is
    unchanged where an error is raised.

    Raises:
        BadRequest: the file cannot be read, would run code, or does not match
            (every missing, unexpected and misshapen key is listed), or holds
            NaN or Inf (which tensors).
    """
    if not file.is_file():
        raise BadRequest(f"--checkpoint {file}: {'a folder, not a file' if file.is_dir() else 'no such file'}.")
    state = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pytorch(file)
    wanted = module.state_dict()
    if not set(state) & set(wanted):
        state = _without_prefix(state)
    problems = _mismatches(wanted, state)
    if problems:
        raise BadRequest(
            f"--checkpoint {file} does not match the module:\n  " + "\n  ".join(problems) + "\n"
            "Check the options that it was trained with (--channels, --set), or the factory."
        )
    odd = [f"{key} ({_kind(value)})" for key, value in state.items() if not _is_plain(value)]
    if odd:
        raise BadRequest(
            f"--checkpoint {file} holds tensors of a kind that cannot be loaded: {', '.join(odd)}. "
            "Save dense real tensors."
        )
    bad = [key for key, value in state.items() if not bool(value.to(wanted[key].dtype).isfinite().all())]
    if bad:
        raise BadRequest(
            f"--checkpoint {file} holds NaN or Inf in: {', '.join(bad)}. The training diverged; use an earlier one."
        )
    module.load_state_dict(dict(state))


def _is_plain(tensor: Tensor) -> bool:
    import torch

    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool)
    whole = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.dtype in (*kinds, *whole)


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype}, {tensor.layout}, {tensor.device}"


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    import safetensors
    import safetensors.torch

    try:
        state: dict[str, Tensor] = safetensors.torch.load_file(str(file))
    except (safetensors.SafetensorError, OSError) as error:
        raise BadRequest(f"--checkpoint {file} cannot be read as safetensors: {error}.") from error
    return state


def _read_pytorch(file: Path) -> dict[str, Tensor]:
    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL " not in str(error):
            raise BadRequest(f"--checkpoint {file} cannot be read as a PyTorch file.") from error
        raise BadRequest(
            f"--checkpoint {file} was refused: it holds more than tensors, and loading it could run code "
            f"(it names {_refused_global(str(error))}). Save only the state_dict: torch.save(model.state_dict(), ...)."
        ) from error
    except Exception as error:  # a broken file makes torch raise many types
        raise BadRequest(f"--checkpoint {file} cannot be read as a PyTorch file: {first_line(error)}.") from error
    return _unwrapped(file, content)


def _unwrapped(file: Path, content: Any) -> dict[str, Tensor]:
    import torch

    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    ):
        found = (
            f"keys {', '.join(map(str, list(content)[:8]))}" if isinstance(content, Mapping) else type(content).__name__
        )
        raise BadRequest(
            f"--checkpoint {file} holds no state_dict (found {found}); it may lie at the top level "
            f"or under one of {', '.join(_WRAPPERS)}."
        )
    return dict(content)


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if state and all(key.startswith(_PARALLEL_PREFIX) for key in state):
        return {key[len(_PARALLEL_PREFIX) :]: value for key, value in state.items()}
    return state


def _mismatches(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    problems = [f"missing: {key} {tuple(value.shape)}" for key, value in wanted.items() if key not in found]
    problems += [f"unexpected: {key} {tuple(value.shape)}" for key, value in found.items() if key not in wanted]
    problems += [
        f"shape: {key} is {tuple(found[key].shape)}, the module has {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in found and found[key].shape != value.shape
    ]
    return problems


def _refused_global(message: str) -> str:
    """What the file wanted to import, from PyTorch's long message."""
    return message.partition("GLOBAL ")[2].split()[0]
