"""A small network around one attention module, with weights and statistics that hide nothing."""

from __future__ import annotations

from collections import OrderedDict

import onnxruntime
import torch
from torch import Tensor, nn

from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.rewriting.finding import Finding
from deploy_attn.rewriting.rewrite import Rewrite, rewrite

SIZE = (7, 9)


def randomised(module: nn.Module) -> nn.Module:
    """The module with random weights, biases and BatchNorm statistics, also where it starts with zeros or ones."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() < 2:
                parameter.uniform_(-0.8, 0.8, generator=generator)
            else:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
                part.running_mean.normal_(0, 0.3, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
    return module.eval()


def network_with(attention: nn.Module, channels: int) -> nn.Module:
    """A convolution from 3 channels, and the module as `attention`."""
    layers = OrderedDict(stem=nn.Conv2d(3, channels, 3, padding=1), attention=attention)
    return randomised(nn.Sequential(layers))


def photo() -> Tensor:
    return torch.randn((1, 3, *SIZE), generator=torch.Generator().manual_seed(3))


def rewritten(network: nn.Module, engine: str = "cpu", dynamic_size: bool = False) -> tuple[Rewrite, Finding]:
    """The result, and the finding at `attention`, of which there must be exactly one."""
    result = rewrite(network, photo(), engine, dynamic_size)
    (finding,) = (finding for finding in result.findings if "attention" in finding.paths)
    return result, finding


def check_replaced(network: nn.Module, name: str, **wanted: object) -> Rewrite:
    """The only finding is the module at `attention`; it is recognised, replaced and exact."""
    result, finding = rewritten(network, **wanted)  # type: ignore[arg-type]
    assert len(result.findings) == 1
    assert finding.replaced, finding.reason
    assert finding.recognised_as == name
    assert finding.evidence
    assert finding.certificate is not None
    assert finding.certificate.worst_error <= 1e-11
    assert result.whole.error <= 1e-11
    assert type(result.model.get_submodule("attention")) is not type(network.get_submodule("attention"))
    return result


def check_left_alone(network: nn.Module) -> None:
    """The module at `attention` is recognised, and stays as it is, with a reason."""
    result, finding = rewritten(network)
    assert not finding.replaced
    assert finding.reason
    assert "not proven" in finding.reason
    assert type(result.model.get_submodule("attention")) is type(network.get_submodule("attention"))


def check_in_onnxruntime(network: nn.Module) -> None:
    """The rewritten network at opset 13 against the network as it is written, 1e-5."""
    result, finding = rewritten(network)
    assert finding.replaced, finding.reason
    graph = onnx_from_module(result.model, photo(), GraphRequest(13, 7))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"input": photo().numpy()})
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(got), network(photo()), rtol=1e-5, atol=1e-5)
