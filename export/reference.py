"""Parity cases: what the reference network computes, in float64, and how near FP32 can come to it."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploy_attn.export.onnx_from_module import INPUT, output_names, output_tensors
from deploy_attn.jetson.artifact import Case
from deploy_attn.jetson.errors import BadRequest, first_line
from deploy_attn.jetson.metrics import compare

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


_AMPLIFIED = 1e-6  # an FP32 run that is this far off has more than rounding of its own
_CHANGED_INPUTS = 3


def check_network(network: nn.Module, x: np.ndarray[Any, Any]) -> None:
    """Runs a network twice on one input, which also gives lazy modules their weights.

    Raises:
        BadRequest: it cannot be copied, returns no tensors or empty ones, or
            gives two results for one input. What its forward raises goes through.
    """
    import torch

    with torch.no_grad():  # not inference_mode: weights made here are used in other modes later
        first, second = (output_tensors(network(torch.from_numpy(x).clone())) for _ in range(2))
    if any(tensor.numel() == 0 for tensor in first):
        raise BadRequest("The network returns an empty tensor: there is nothing to compare. Return others.")
    if not all(torch.equal(a, b) for a, b in zip(first, second)):
        raise BadRequest(
            "The network gives two results for one input in eval mode, so no graph can equal it. "
            "Is there noise, dropout that is always on, or a state that forward changes?"
        )
    try:
        copy.deepcopy(network)
    except Exception as error:  # __deepcopy__ may raise anything
        raise BadRequest(
            f"The network cannot be copied, and an export works on copies: {first_line(error)}. "
            "Build it without what its error names."
        ) from error


def reference_cases(network: nn.Module, inputs: Mapping[str, np.ndarray[Any, Any]]) -> list[Case]:
    """Runs a float64 copy of the network on each input; outputs are stored as float32.

    Raises:
        BadRequest: the network returns no tensors, or something that is not a number.
    """
    import torch

    reference = copy.deepcopy(network).double().eval()
    cases = []
    for name, x in inputs.items():
        with torch.inference_mode():
            tensors = [tensor.to(torch.float32) for tensor in output_tensors(reference(torch.from_numpy(x).double()))]
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise BadRequest(
                f"The network itself gives NaN, Inf or values beyond FP32 on the parity input {name!r}, "
                "computed in float64. Check its weights (--checkpoint) or give a real input (--input)."
            )
        outputs = [tensor.numpy() for tensor in tensors]
        cases.append(Case(name, {INPUT: x}, dict(zip(output_names(len(outputs)), outputs))))
    return cases


def fp32_errors(network: nn.Module, cases: list[Case]) -> dict[str, dict[str, dict[str, float]]]:
    """How far the network itself is from float64 in PyTorch in FP32: `rms_relative` and `worst_relative`.

    By case and output. Where it amplifies rounding, a single run is chance: its
    error is then the largest of four, three of them on inputs whose last bits
    were changed. An error that is not a number (the network leaves the range of
    FP32) is left out.
    """
    single = copy.deepcopy(network).float().eval()
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for case in cases:
        x = case.inputs[INPUT]
        found = _own_errors(single, x, case)
        if any(error["rms_relative"] > _AMPLIFIED for error in found.values()):
            for seed in range(_CHANGED_INPUTS):
                again = _own_errors(single, _last_bits_changed(x, seed), case)
                for name in found.keys() & again.keys():
                    found[name] = {key: max(value, again[name][key]) for key, value in found[name].items()}
        errors[case.name] = found
    return errors


def _own_errors(single: nn.Module, x: np.ndarray[Any, Any], case: Case) -> dict[str, dict[str, float]]:
    import torch

    with torch.inference_mode():
        tensors = output_tensors(single(torch.from_numpy(x).clone()))
    found = {name: compare(tensor.numpy(), case.outputs[name]) for name, tensor in zip(case.outputs, tensors)}
    return {
        name: {"rms_relative": comparison.rms_relative, "worst_relative": comparison.worst_relative}
        for name, comparison in found.items()
        if math.isfinite(comparison.rms_relative)
    }


def _last_bits_changed(x: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """Each value moved to its neighbour in FP32, up or down by chance."""
    import numpy as np

    upwards = np.random.RandomState(seed).random_sample(x.shape) < 0.5
    changed: np.ndarray[Any, Any] = np.nextafter(x, np.where(upwards, np.float32("inf"), np.float32("-inf")))
    return changed


def npz_from_cases(cases: list[Case]) -> bytes:
    """The contents of reference.npz, as `Artifact.cases` reads them."""
    import numpy as np

    arrays: dict[str, Any] = {}
    for case in cases:
        arrays.update({f"{case.name}/inputs/{name}": array for name, array in case.inputs.items()})
        arrays.update({f"{case.name}/outputs/{name}": array for name, array in case.outputs.items()})
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
