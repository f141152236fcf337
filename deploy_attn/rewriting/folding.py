"""BatchNorms folded into the layer before them, each with its own eps and under a certificate."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.export.certificate import Certificate, compare_modules, compare_with
from deploy_attn.export.copying import with_other_modules
from deploy_attn.export.results import output_tensors
from deploy_attn.rewriting.dataflow import Asked, Dataflow, Hop, dataflow
from deploy_attn.rewriting.evidence import qualified_name
from deploy_attn.rewriting.finding import Finding

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deploy_attn.export.arguments import Arguments

_SEED = 20180717


@dataclass(frozen=True)
class Folded:
    """A network without the norms that could go, and a finding for each of those."""

    network: nn.Module
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Fold:
    """A layer that computes a layer and its norm, what is left of the norm, and the proof."""

    hop: Hop
    layer: nn.Module
    rest: nn.Module
    certificate: Certificate


def fold(network: nn.Module, arguments: Arguments) -> Folded:
    """Folds every BatchNorm in inference whose input one convolution or linear layer makes, for nobody else.

    A fold is tried on a piece of the network's own activations and on noise,
    and the network with all folds against the network. Norms that do not fold
    stay as they are, without a finding; so do all, where the network as a whole
    does not bear it (it may read attributes of a norm).

    Args:
        network: in float64 and eval mode; it is left as it was, and shares its other modules' weights with the result.
        arguments: in float64.

    Returns:
        The folded network, or the network itself where nothing folds.
    """
    modules = list(network.modules())
    layers = [module for module in modules if _is_layer(module)]
    norms = [module for module in modules if _is_norm(module)]
    if not layers or not norms:
        return Folded(network, ())
    flow = dataflow(network, Asked(layers, norms, _piece), arguments)
    paths = _paths_of(network)
    tried = [_tried(hop, paths) for hop in flow.hops]
    folds = [made for made in tried if made is not None and made.certificate.proven]
    folded = _with_folds(network, folds)
    if not folds or not _same(network, folded, arguments, flow):
        return Folded(network, ())
    return Folded(folded, tuple(_finding(made, paths) for made in folds))


def _is_layer(module: nn.Module) -> bool:
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    return isinstance(module, (_ConvNd, nn.Linear)) and not _has_hooks(module)


def _is_norm(module: nn.Module) -> bool:
    """Has the statistics of a BatchNorm, by whatever class; what it computes with them is tried."""
    import torch

    own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    statistics = [own.get(name) for name in ("running_mean", "running_var")]
    known = all(isinstance(value, torch.Tensor) and value.dim() == 1 for value in statistics)
    if not known or isinstance(module, torch.jit.ScriptModule):  # which takes no hooks to be watched by
        return False
    return isinstance(getattr(module, "eps", None), float) and not module.training and not _has_hooks(module)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _piece(layer: nn.Module, x: Tensor) -> Tensor:
    """As much of a layer's input as one window of it takes."""
    from torch.nn.modules.conv import _ConvNd

    piece = x[:1]
    if isinstance(layer, _ConvNd):
        for axis, (kernel, dilation) in enumerate(zip(layer.kernel_size, layer.dilation), start=2):
            piece = piece.narrow(axis, 0, min(x.shape[axis], (kernel - 1) * dilation + 1))
    return piece


def _tried(hop: Hop, paths: Mapping[nn.Module, tuple[str, ...]]) -> _Fold | None:
    """The fold of one norm with its proof; None where it cannot be computed."""
    import torch
    from torch import nn

    try:
        layer, rest = _with_norm(hop.first, hop.second), _after_norm(hop.second)
        before, after = nn.Sequential(hop.first, hop.second), nn.Sequential(layer, rest)
        noise = torch.randn(hop.fed.shape, generator=torch.Generator().manual_seed(_SEED), dtype=hop.fed.dtype)
        both = torch.cat([hop.fed, noise * hop.fed.abs().mean().clamp(min=1e-3)])
        trial = compare_modules("a piece of the network's own, and noise as large", before, after, both)
    except Exception:  # a norm of another class may raise anything
        return None
    subject = f"{paths[hop.first][0]} and {paths[hop.second][0]}"
    return _Fold(hop, layer, rest, Certificate(subject, type(layer).__name__, (trial,)))


def _with_norm(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """A copy of a layer that computes the norm as well."""
    from torch import nn

    weight, bias = _folded_values(layer, norm)
    folded = copy.deepcopy(layer, {id(value): value for value in layer.parameters()})
    folded.weight = nn.Parameter(weight, requires_grad=False)
    folded.bias = nn.Parameter(bias, requires_grad=False)
    return folded


def _folded_values(layer: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias; a transposed convolution has its outputs on the second axis of the weight, group by group."""
    from deploy_attn.modules.base import affine_of_norm, fold_norm

    if not getattr(layer, "transposed", False):
        return fold_norm(layer, norm)
    affine, weight = affine_of_norm(norm), layer.weight.detach()
    scale = affine.scale.reshape(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
    scaled = weight.reshape(layer.groups, -1, *weight.shape[1:]) * scale
    own = affine.shift if layer.bias is None else affine.shift + affine.scale * layer.bias.detach()
    return scaled.reshape(weight.shape), own


def _after_norm(norm: nn.Module) -> nn.Module:
    """What a norm does besides: its activation and the like, in the order in which it holds them."""
    from torch import nn

    parts = [child for child in norm.children() if not isinstance(child, nn.Identity)]
    if len(parts) == 1:
        return parts[0]
    return nn.Sequential(*parts) if parts else nn.Identity()


def _with_folds(network: nn.Module, folds: list[_Fold]) -> nn.Module:
    layers = {made.hop.first: made.layer for made in folds}
    return with_other_modules(network, {**layers, **{made.hop.second: made.rest for made in folds}})


def _same(network: nn.Module, folded: nn.Module, arguments: Arguments, flow: Dataflow) -> bool:
    try:
        wanted = output_tensors(flow.returned)
        return compare_with("the whole network", network, folded, arguments, wanted).passed
    except Exception:  # a network may raise anything
        return False


def _paths_of(network: nn.Module) -> dict[nn.Module, tuple[str, ...]]:
    paths: dict[nn.Module, tuple[str, ...]] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        paths[module] = (*paths.get(module, ()), path)
    return paths


def _finding(made: _Fold, paths: Mapping[nn.Module, tuple[str, ...]]) -> Finding:
    norm: Any = made.hop.second
    layer = paths[made.hop.first][0]
    evidence = (f"reads the output of {layer}, which nothing else reads", f"eps {norm.eps:g}")
    return Finding(
        paths[norm], qualified_name(norm), f"BatchNorm after {layer}", evidence, True, None, made.certificate
    )
