"""A catalogue module as one fused operator: a graph for onnxruntime on a CPU with the library of `engines.fused`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.fused.library import DOMAIN
from deploy_attn.export.arguments import INPUT
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.suggest import known_names

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from deploy_attn.modules.base import ReferenceForm

_OPSET, _IR_VERSION = 17, 8  # of the graph around the operator, which has no other node
_KERNEL_SIZE = 7


def fused_graph(reference: ReferenceForm, channels: int) -> onnx.ModelProto:
    """The graph `input -> output` of one node, for maps of so many channels and any batch, height and width.

    Raises:
        BadRequest: the module, or an option that it has, is not among the fused ones.
    """
    import onnx
    from onnx import TensorProto, helper

    from deploy_attn.modules.base import ReferenceForm

    name = getattr(reference, "catalogue_name", type(reference).__name__)
    if not isinstance(reference, ReferenceForm) or name not in _PARAMETERS:
        raise BadRequest(f"There is no fused operator for {name}. {known_names(name, _PARAMETERS)}")
    extents = ("batch", channels, "height", "width")
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, extents) for end in (INPUT, "output")]
    weights = onnx.numpy_helper.from_array(fused_parameters(reference), "parameters")
    node = helper.make_node(name, [INPUT, "parameters"], ["output"], f"/{name}", domain=DOMAIN)
    graph = helper.make_graph([node], name, ends[:1], ends[1:], [weights])
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="deploy-attn")


def fused_parameters(reference: ReferenceForm) -> Any:
    """What the kernel of a module takes, as kernels.c lists it: one float32 vector.

    Raises:
        BadRequest: it has an option that the kernel does not know.
    """
    import torch

    parts = _PARAMETERS[reference.catalogue_name](reference)
    return torch.cat([torch.as_tensor(part).detach().double().flatten() for part in parts]).float().numpy()


def _srm(module: Any) -> Sequence[Tensor | float]:
    from deploy_attn.modules.base import affine_of_norm

    norm = affine_of_norm(module.bn)
    of_mean, of_deviation = norm.scale[:, None].mul(module.cfc).unbind(1)
    return of_mean, of_deviation, norm.shift, 1e-5


def _gct(module: Any) -> Sequence[Tensor | float]:
    _only(module, "mode", "l2")
    return module.alpha, module.gamma, module.beta, module.epsilon


def _shuffle(module: Any) -> Sequence[Tensor | float]:
    import torch

    part = module.channels // (2 * module.groups)
    order = torch.arange(module.channels).reshape(2, -1).T.reshape(-1)
    by_place, within = order % (2 * part) >= part, order % part
    of_place, of_mean = module.sweight.flatten()[within], module.cweight.flatten()[within]
    slope = torch.where(by_place, of_place * module.gn.weight[within], of_mean)
    place_shift = of_place * module.gn.bias[within] + module.sbias.flatten()[within]
    shift = torch.where(by_place, place_shift, module.cbias.flatten()[within])
    return order, by_place, slope, shift, module.gn.eps


def _cbam(module: Any) -> Sequence[Tensor | float]:
    reduce, expand, kernel = module.parameters()
    if kernel.shape[-1] != _KERNEL_SIZE:
        raise BadRequest(
            f"The fused operator of cbam has a kernel of {_KERNEL_SIZE}x{_KERNEL_SIZE}, and this module one of "
            f"{kernel.shape[-1]}x{kernel.shape[-1]}. Its graph in the artifact has no such limit."
        )
    return float(len(reduce)), reduce, expand.T, kernel


def _triplet(module: Any) -> Sequence[Tensor | float]:
    from deploy_attn.modules.base import fold_norm

    _only(module, "no_spatial", False)
    cw, hc, hw = (fold_norm(gate.conv.conv, gate.conv.bn) for gate in (module.cw, module.hc, module.hw))
    return *cw, hc[0].transpose(2, 3), hc[1], *hw


def _only(module: Any, option: str, value: object) -> None:
    """Raises BadRequest where an option has another value."""
    found = getattr(module, option)
    if found != value:
        raise BadRequest(
            f"The fused operator of {module.catalogue_name} has {option}={value}, and this module {option}={found}. "
            "Its graph in the artifact has no such limit."
        )


_PARAMETERS: Mapping[str, Callable[[Any], Sequence[Tensor | float]]] = MappingProxyType(
    {
        "cbam": _cbam,
        "gct": _gct,
        "shuffle": _shuffle,
        "simam": lambda module: (module.e_lambda,),
        "srm": _srm,
        "triplet": _triplet,
    }
)
