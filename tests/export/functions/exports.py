"""What the tests of this room do: prove, export under the proven forms, run the file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from deploy_attn.engines.target import load_target
from deploy_attn.export.arguments import Arguments
from deploy_attn.export.functions.finding import FunctionFinding
from deploy_attn.export.functions.mode import exact_functions
from deploy_attn.export.functions.proof import prove_functions
from deploy_attn.export.functions.rule import Aim
from deploy_attn.export.linting.lint import findings_of
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.simplify import simplify

IR_VERSIONS = {13: 7, 17: 8}


@dataclass(frozen=True)
class Exported:
    """The graph, what was found on the way, and its largest error against eager, relative to the largest value."""

    model: onnx.ModelProto
    findings: tuple[FunctionFinding, ...]
    error: float

    @property
    def operators(self) -> set[str]:
        return {node.op_type for node in self.model.graph.node}

    @property
    def nano_errors(self) -> list[str]:
        """What TensorRT 8.2 refuses or computes wrongly."""
        return [found.rule for found in findings_of(self.model, load_target("jetson-nano")) if found.is_error]


class Computes(nn.Module):
    """A function of its input and of some modules."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.parts)


def network_of(function: Callable[..., Any], *modules: nn.Module) -> nn.Module:
    """A network of one function of its input; its modules' weights are random."""
    torch.manual_seed(0)
    network = Computes(function, *modules)
    for value in [*network.parameters(), *network.buffers()]:
        if value.is_floating_point():
            nn.init.uniform_(value, 0.2, 1)
    return network.eval()


def proven(network: nn.Module, x: Tensor, aim: Aim) -> tuple[FunctionFinding, ...]:
    return prove_functions(copy.deepcopy(network).double(), Arguments.of(x.double()), aim)


def both_ways(network: nn.Module, x: Tensor, aim: Aim) -> tuple[Any, Any, tuple[FunctionFinding, ...]]:
    """What a network returns as it is, and under its proven forms."""
    findings = proven(network, x, aim)
    plain = network(x.clone())
    with exact_functions(findings, aim):
        return plain, network(x.clone()), findings


def exported(network: nn.Module, x: Tensor, opset: int = 13, **open_axes: bool) -> Exported:
    """Exports under the proven forms; an open batch or size is tried with more than was traced."""
    request = GraphRequest(opset, IR_VERSIONS[opset], **open_axes)
    aim = Aim(opset, request.dynamic_size)
    findings = proven(network, x, aim)
    with torch.inference_mode(), exact_functions(findings, aim):
        traced = onnx_from_module(network, x, request)
    model = simplify(traced, {"input": x.numpy()}, request).model
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    errors = []
    for fed in _fed(x, request):
        with torch.inference_mode():
            wanted = network(fed).numpy()
        got = session.run(None, {"input": fed.numpy()})[0]
        assert got.shape == wanted.shape
        errors.append(float(np.abs(got - wanted).max() / np.abs(wanted).max()))
    return Exported(model, findings, max(errors))


def _fed(x: Tensor, request: GraphRequest) -> list[Tensor]:
    fed = [x]
    if request.dynamic_batch:
        fed.append(torch.randn(x.shape[0] + 1, *x.shape[1:]))
    if request.dynamic_size:
        fed.append(torch.randn(*x.shape[:2], x.shape[2] + 2, x.shape[3] + 3))
    return fed
