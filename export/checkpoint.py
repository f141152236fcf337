"""Checkpoints: untrusted files in, a strictly matching state_dict out."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.jetson.errors import BadRequest, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

_WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "net", "network", "module", "params", "weights"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema"),  # where there is nothing else
)
_WRAPPER_SEGMENTS = frozenset(("module", "_orig_mod"))  # of DataParallel and torch.compile, wherever they stand
_AVERAGED = "n_averaged"  # what torch.optim.swa_utils.AveragedModel keeps beside the weights
_COUNTER = "num_batches_tracked"  # of BatchNorm in training; old checkpoints have none
_LISTED = 12


def load_checkpoint(module: nn.Module, file: Path) -> None:
    """Loads a checkpoint into a module, strictly.

    Takes .safetensors, and PyTorch files with a state_dict, bare or under one
    of the usual keys, with or without the prefixes that DataParallel,
    torch.compile or a training class put before its keys. Nothing in the file
    is executed. The module is unchanged where an error is raised.

    Raises:
        BadRequest: the file cannot be read, would run code, or does not match
            (how many keys do, and the first that do not), or holds NaN or Inf
            (which tensors).
    """
    if not file.is_file():
        raise BadRequest(f"--checkpoint {file}: {'a folder, not a file' if file.is_dir() else 'no such file'}.")
    wanted = module.state_dict()
    from_torch = file.suffix != ".safetensors"
    candidates = _state_dicts(file, _read_pytorch(file)) if from_torch else [_read_safetensors(file)]
    state = _best(wanted, [renamed for candidate in candidates for renamed in _renamed(candidate)])
    if any(_mismatches(wanted, state)):
        raise BadRequest(_mismatch_text(file, wanted, state))
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


def _read_pytorch(file: Path) -> Any:
    import argparse

    import torch

    try:
        # Training scripts keep their options in a Namespace, which holds values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL " not in str(error):
            raise BadRequest(f"--checkpoint {file} cannot be read as a PyTorch file.") from error
        raise BadRequest(
            f"--checkpoint {file} was refused: it holds more than tensors, and loading it could run code "
            f"(it names {_refused_global(str(error))}). Save only the state_dict: torch.save(model.state_dict(), ...); "
            "of a file that holds a whole model, load it where it was made and save its state_dict."
        ) from error
    except Exception as error:  # a broken file makes torch raise many types
        if "TorchScript" in str(error):
            raise BadRequest(
                f"--checkpoint {file} is a TorchScript archive, not weights. "
                "Save those: torch.save(torch.jit.load(...).state_dict(), ...)."
            ) from error
        raise BadRequest(f"--checkpoint {file} cannot be read as a PyTorch file: {first_line(error)}.") from error


def _state_dicts(file: Path, content: Any) -> list[dict[str, Tensor]]:
    """Every state_dict of a file's content: itself, or what lies under one of the usual keys, in their order."""
    if _is_state_dict(content):
        return [dict(content)]
    inner = content if isinstance(content, Mapping) else {}
    under = [inner[key] for key in _WRAPPERS if isinstance(inner.get(key), Mapping)]
    deeper = [part[key] for part in under for key in _WRAPPERS if isinstance(part.get(key), Mapping)]
    found = [dict(part) for part in (*under, *deeper) if _is_state_dict(part)]
    if found:
        return found
    said = f"keys {', '.join(map(str, list(content)[:8]))}" if inner else type(content).__name__
    raise BadRequest(
        f"--checkpoint {file} holds no state_dict (found {said}); it may lie at the top level "
        f"or under one of {', '.join(_WRAPPERS)}."
    )


def _is_state_dict(content: Any) -> bool:
    import torch

    return isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    )


def _renamed(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state as it is, then without wrappers' names in its keys, then without what all keys begin with."""
    yield state
    bare = {key: value for key, value in state.items() if key != _AVERAGED}
    plain = {
        ".".join(part for part in key.split(".") if part not in _WRAPPER_SEGMENTS): value for key, value in bare.items()
    }
    if len(plain) < len(bare):  # two keys became one
        return
    yield plain
    while len({key.partition(".")[0] for key in plain}) == 1 and all("." in key for key in plain):
        plain = {key.partition(".")[2]: value for key, value in plain.items()}
        yield plain


def _best(wanted: Mapping[str, Tensor], states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The first state that fits, else the one that fits best."""
    return min(states, key=lambda state: (any(_mismatches(wanted, state)), -_matching(wanted, state)))


def _matching(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> int:
    return sum(key in found and found[key].shape == value.shape for key, value in wanted.items())


def _mismatches(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """The keys that are missing, unexpected, and of another shape."""
    missing = [key for key in wanted if key not in found and not key.endswith(_COUNTER)]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [key for key, value in wanted.items() if key in found and found[key].shape != value.shape]
    return missing, unexpected, misshapen


def _mismatch_text(file: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """How much matches, and the first of what does not, a kind after the other."""
    missing, unexpected, misshapen = _mismatches(wanted, found)
    lines: list[str] = []
    for kind, keys in (("missing", missing), ("unexpected", unexpected), ("shape", misshapen)):
        lines += [f"{kind}: {key} {_said(kind, key, wanted, found)}" for key in keys[:_LISTED]]
        lines += [f"{kind}: and {len(keys) - _LISTED} more"] if len(keys) > _LISTED else []
    return (
        f"--checkpoint {file} does not match the module: of its {len(wanted)} keys {_matching(wanted, found)} are in "
        f"the file, which holds {len(found)}, in the same shape.\n  " + "\n  ".join(lines) + "\n"
        "Check the options that it was trained with (--channels, --set), or the factory."
    )


def _said(kind: str, key: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    if kind == "unexpected":
        return str(tuple(found[key].shape))
    shape = tuple(wanted[key].shape)
    if kind == "shape":
        return f"is {tuple(found[key].shape)}, the module has {shape}"
    alike = [name for name, value in found.items() if name not in wanted and value.shape == wanted[key].shape]
    nearest = difflib.get_close_matches(key, alike, n=1)
    return f"{shape}, nearest in the file: {nearest[0]}" if nearest else str(shape)


def _refused_global(message: str) -> str:
    """What the file wanted to import, from PyTorch's long message."""
    return message.partition("GLOBAL ")[2].split()[0]
