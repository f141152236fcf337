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


def fp32_errors(network: nn.Module, cases: list[Case]) -> dict[str, dict[str, float]]:
    """RMS relative error of the network itself, in PyTorch in FP32, by case and output.

    An error that is not a number (the network leaves the range of FP32) is left out.
    """
    import torch

    single = copy.deepcopy(network).float().eval()
    errors = {}
    for case in cases:
        with torch.inference_mode():
            tensors = output_tensors(single(torch.from_numpy(case.inputs[INPUT]).clone()))
        outputs = zip(case.outputs.items(), tensors)
        found = {name: compare(tensor.numpy(), wanted).rms_relative for (name, wanted), tensor in outputs}
        errors[case.name] = {name: error for name, error in found.items() if math.isfinite(error)}
    return errors


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
