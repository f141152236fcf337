"""Parity cases: what the reference network computes, in float64, and how near FP32 can come to it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import INPUT, Arguments, Call
from deploy_attn.export.copying import copied, in_float64
from deploy_attn.export.results import dropped_outputs, named_outputs, output_tensors
from deploy_attn.export.untraceable import check_traceable, untraceable
from deploy_attn.jetson.artifact import Case
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.metrics import compare

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from deploy_attn.export.arguments import Feeds

    Array = np.ndarray[Any, Any]

_AMPLIFIED = 1e-6  # an FP32 run that is this far off has more than rounding of its own
_CHANGED_INPUTS = 3


@dataclass(frozen=True)
class FirstRuns:
    """What was seen when a network ran: outputs that are None, and lines that a graph leaves out."""

    dropped: tuple[str, ...]
    left_out: tuple[str, ...]


def check_network(network: nn.Module, example: Tensor | Arguments) -> FirstRuns:
    """Runs a network on one input, and again.

    Raises:
        BadRequest: it returns no tensors or empty ones, does what no graph
            keeps, gives two results for one input, or does not compute the
            same once it is copied. What its forward raises goes through.
    """
    import torch

    arguments = Arguments.of(example)
    with torch.no_grad():  # not inference_mode: what a network keeps of a run is used in other modes later
        # First, as what is read may be kept; by itself, as some of torch's layers take another way where they are seen.
        left_out = check_traceable(untraceable(network, arguments))
        returned = arguments.call(network)
        first, second = output_tensors(returned), output_tensors(arguments.call(network))
    if any(tensor.numel() == 0 for tensor in first):
        raise BadRequest("The network returns an empty tensor: there is nothing to compare. Return others.")
    if len(first) != len(second) or not all(map(_equal, first, second)):
        raise BadRequest(
            "The network gives two results for one input in eval mode, so no graph can equal it. "
            "Is there noise, dropout that is always on, or a state that forward changes?"
        )
    _check_copy(network, arguments)
    return FirstRuns(tuple(dropped_outputs(returned)), left_out)


def _check_copy(network: nn.Module, arguments: Arguments) -> None:
    """A hook or a lambda that holds its network still holds the first one in a copy, which then computes stale values.

    Raises:
        BadRequest: a copy answers another input otherwise than the network does.
    """
    import torch

    other = arguments.mapped(lambda x: -x if x.is_floating_point() else x)
    duplicate = copied(network)
    try:
        with torch.no_grad():
            wanted = output_tensors(other.call(network))
            got = output_tensors(other.call(duplicate))
        same = len(got) == len(wanted) and all(map(_alike, got, wanted))
    except Exception:  # a network may raise anything over an input that nobody gave
        return
    if not same:
        raise BadRequest(
            "A copy of the network computes something else than the network, and an export works on copies. Does a "
            "hook or a lambda hold the network itself? In the copy it still holds the first one: have it use its "
            "module argument, or write it as a method."
        )


def _equal(first: Tensor, second: Tensor) -> bool:
    """Also where both are NaN."""
    if first.shape != second.shape:
        return False
    return bool(((first == second) | ((first != first) & (second != second))).all())


def _alike(first: Tensor, second: Tensor) -> bool:
    import torch

    return first.shape == second.shape and torch.allclose(first.double(), second.double(), 1e-3, 1e-5, equal_nan=True)


def reference_cases(network: nn.Module, inputs: Mapping[str, Array | Feeds], call: Call | None = None) -> list[Case]:
    """Runs a float64 copy of the network on each input; outputs are stored as float32.

    Args:
        network: it is not changed.
        inputs: by case; an array by itself is the only input.
        call: how the network takes several.

    Raises:
        BadRequest: the network returns no tensors, or something that is not a number.
    """
    import numpy as np
    import torch

    reference = in_float64(network)
    cases = []
    for name, given in inputs.items():
        feeds = {INPUT: given} if isinstance(given, np.ndarray) else dict(given)
        arguments = _arguments(call, feeds).as_type(torch.float64)
        with torch.inference_mode():
            named = named_outputs(arguments.call(reference), feeds)
        outputs = {output: tensor.detach().to(torch.float32) for output, tensor in named.items()}
        if not all(bool(tensor.isfinite().all()) for tensor in outputs.values()):
            raise BadRequest(
                f"The network itself gives NaN, Inf or values beyond FP32 on the parity input {name!r}, "
                "computed in float64. Check its weights (--checkpoint) or give a real input (--input)."
            )
        cases.append(Case(name, feeds, {output: tensor.numpy() for output, tensor in outputs.items()}))
    return cases


def _arguments(call: Call | None, feeds: Feeds) -> Arguments:
    import torch

    return Arguments.of(torch.from_numpy(feeds[INPUT])) if call is None else call.arguments(feeds)


def fp32_errors(
    network: nn.Module, cases: Sequence[Case], call: Call | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """How far the network itself is from float64 in PyTorch in FP32: `rms_relative` and `worst_relative`.

    By case and output. Where it amplifies rounding, a single run is chance: its
    error is then the largest of four, three of them on inputs whose last bits
    were changed. An error that is not a number (the network leaves the range of
    FP32) is left out.
    """
    single = copied(network).float()
    single.eval()
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for case in cases:
        found = _own_errors(single, _arguments(call, case.inputs), case)
        if any(error["rms_relative"] > _AMPLIFIED for error in found.values()):
            for seed in range(_CHANGED_INPUTS):
                changed = {name: _last_bits_changed(x, seed) for name, x in case.inputs.items()}
                again = _own_errors(single, _arguments(call, changed), case)
                for name in found.keys() & again.keys():
                    found[name] = {key: max(value, again[name][key]) for key, value in found[name].items()}
        errors[case.name] = found
    return errors


def _own_errors(single: nn.Module, arguments: Arguments, case: Case) -> dict[str, dict[str, float]]:
    import torch

    with torch.inference_mode():
        tensors = output_tensors(arguments.call(single))
    found = {name: compare(tensor.detach().numpy(), case.outputs[name]) for name, tensor in zip(case.outputs, tensors)}
    return {
        name: {"rms_relative": comparison.rms_relative, "worst_relative": comparison.worst_relative}
        for name, comparison in found.items()
        if math.isfinite(comparison.rms_relative)
    }


def _last_bits_changed(x: Array, seed: int) -> Array:
    """Each value moved to its neighbour in FP32, up or down by chance; whole numbers stay."""
    import numpy as np

    if x.dtype.kind != "f":
        return x
    upwards = np.random.RandomState(seed).random_sample(x.shape) < 0.5
    changed: Array = np.nextafter(x, np.where(upwards, np.float32("inf"), np.float32("-inf")))
    return changed


def npz_from_cases(cases: Sequence[Case]) -> bytes:
    """The contents of reference.npz, as `Artifact.cases` reads them."""
    import numpy as np

    arrays: dict[str, Any] = {}
    for case in cases:
        arrays.update({f"{case.name}/inputs/{name}": array for name, array in case.inputs.items()})
        arrays.update({f"{case.name}/outputs/{name}": array for name, array in case.outputs.items()})
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
