"""Parity cases: what the reference network computes, in float64."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploy_attn.export.onnx_from_module import INPUT, output_names, output_tensors
from deploy_attn.jetson.artifact import Case
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


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
            tensors = output_tensors(reference(torch.from_numpy(x).double()))
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise BadRequest(
                f"The network itself gives NaN or Inf in float64 on the parity input {name!r}. "
                "Check its weights (--checkpoint) or give a real input (--input)."
            )
        outputs = [tensor.to(torch.float32).numpy() for tensor in tensors]
        cases.append(Case(name, {INPUT: x}, dict(zip(output_names(len(outputs)), outputs))))
    return cases
