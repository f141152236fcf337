"""Copies of a network: a caller's own object is never changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from deploy_attn.export.arguments import parts_of
from deploy_attn.jetson.errors import BadRequest, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn


def copied(network: nn.Module) -> nn.Module:
    """A copy with weights of its own.

    Tensors that modules keep beside their weights are copied as values. What
    torch.compile or DataParallel wrapped stands there without its wrapper.

    Raises:
        BadRequest: it holds something that cannot be copied.
    """
    # What a backward pass could go through is refused by deepcopy, as the weights that weight_norm computes.
    kept = (tensor for module in network.modules() for tensor in _kept_tensors(module) if not tensor.is_leaf)
    memo: dict[int, object] = {id(tensor): tensor.detach().clone() for tensor in kept}
    try:
        for module in reversed(list(network.modules())):  # what is inside another wrapper first
            inner = _wrapped(module)
            if inner is not None:
                memo[id(module)] = copy.deepcopy(inner, memo)
        return copy.deepcopy(network, memo)
    except Exception as error:  # __deepcopy__ may raise anything
        raise BadRequest(
            f"The network cannot be copied, and an export works on copies: {first_line(error)}. "
            "Build it without what its error names."
        ) from error


def with_other_modules(network: nn.Module, others: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """A copy that shares its weights with the network, and holds the others themselves where their keys stood."""
    memo: dict[int, object] = {id(value): value for value in [*network.parameters(), *network.buffers()]}
    memo.update({id(module): other for module, other in others.items()})
    return copy.deepcopy(network, memo)


def without_wrappers(network: nn.Module) -> nn.Module:
    """The network itself, or a copy of it where torch.compile or DataParallel wrapped something.

    Raises:
        BadRequest: as `copied`.
    """
    return copied(network) if any(_wrapped(module) is not None for module in network.modules()) else network


def _wrapped(module: nn.Module) -> nn.Module | None:
    """The module that a wrapper runs; None where it is none."""
    from torch import nn

    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner: nn.Module = module.module
        return inner
    kind = type(module)  # its own package takes a second to import
    compiled = (kind.__module__, kind.__qualname__) == ("torch._dynamo.eval_frame", "OptimizedModule")
    return module.get_submodule("_orig_mod") if compiled else None


def _kept_tensors(module: nn.Module) -> Iterator[Tensor]:
    """The tensors among a module's attributes, and in the lists and dicts among them."""
    import torch

    for value in vars(module).values():
        for part in (value, *(parts_of(value) or {}).values()):
            if isinstance(part, torch.Tensor):
                yield part


def in_float64(network: nn.Module) -> nn.Module:
    """A copy in float64 and eval mode, on the CPU, its weights in the usual order of memory.

    Raises:
        BadRequest: as `copied` and `check_weights`.
    """
    check_weights(network)
    plain = copied(network).cpu().double()
    plain.eval()  # by itself: a train() of a user's own often returns nothing
    for value in (*plain.parameters(), *plain.buffers()):
        value.data = value.data.contiguous()
    return plain


def check_weights(network: nn.Module) -> None:
    """Raises BadRequest unless all weights are there, and are real numbers."""
    from torch.nn.parameter import is_lazy

    for path, module in network.named_modules():
        where = f"{path or 'The network itself'} ({type(module).__name__})"
        values = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(is_lazy(value) for value in values):
            raise BadRequest(f"{where} has no weights before its first run: run the network once, then ask again.")
        if any(value.is_meta for value in values):
            raise BadRequest(f"{where} has no weights: they are on the device 'meta'. Load them, then ask again.")
        if any(value.is_complex() for value in values):
            raise BadRequest(f"{where} has complex weights, which no target computes. Write it in real numbers.")
        home = type(module).__module__
        if (home.startswith("torch.") and ".quantized" in home) or any(value.is_quantized for value in values):
            raise BadRequest(
                f"{where} is quantised, and no proof in float64 can be had of it. Give the network before quantisation."
            )
