"""Selective kernels: branches of convolutions, mixed by a softmax over the branches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from deploy_attn.rewriting.families.loaded import holds_only, part_at
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.base import MapShape
    from deploy_attn.modules.own_layers import Block, Layer
    from deploy_attn.modules.sk import Selection


class _Names(NamedTuple):
    """Where a source keeps the branches, the layer that squeezes, what follows it, and the layers of the logits."""

    branches: str
    reduce: tuple[str, ...]
    logits: str


_LAYOUTS = (
    _Names("convs", ("fc",), "fcs"),
    _Names("convs", ("fc1",), "fc2"),
    _Names("conv", ("fc1",), "fc2"),
    _Names("paths", ("attn.fc_reduce", "attn.bn", "attn.act"), "attn.fc_select"),
)
_KNOWN = ("timm.layers.selective_kernel.SelectiveKernel",)


def recognise(module: nn.Module) -> Iterator[Match]:
    """A list of branches, a squeezing layer, and logits for every channel of every branch."""
    for names in _LAYOUTS:
        own = names.branches, names.logits, *names.reduce
        if names.branches in module._modules and holds_only(module, *own):
            parts = _parts(module, names)
            if parts is not None:
                said = [_said(block) for block in parts.blocks]
                yield Match("sk", seen(module, _KNOWN, f"branches {', '.join(said)}"), parts.form)


class _Parts(NamedTuple):
    """The layers of a module; its form serves every size and family."""

    blocks: tuple[Block, ...]
    reduce: Block
    logits: tuple[Block, ...]

    def form(self, shape: MapShape, engine: str) -> nn.Module:
        from deploy_attn.modules.sk import SelectiveBlocks

        return SelectiveBlocks(self.blocks, self.selection(), split=self.blocks[0].inputs < shape.channels)

    def selection(self) -> Selection:
        import torch

        from deploy_attn.modules.sk import Selection

        layers = [block.folded() for block in self.logits]
        biases = [bias for _, bias in layers if bias is not None]
        logits: Layer = (
            torch.cat([weight.flatten(1) for weight, _ in layers]),
            torch.cat(biases) if len(biases) == len(layers) else None,
        )
        return Selection(self.reduce.folded(), self.reduce.activation, logits, len(self.blocks))


def _parts(module: nn.Module, names: _Names) -> _Parts | None:
    """None where a layer is missing, or the shapes do not fit."""
    from torch import nn

    from deploy_attn.modules.own_layers import block_of

    reduce = [part_at(module, path) for path in names.reduce]
    blocks = [block_of(part) for part in _listed(module, names.branches)]
    squeezing = block_of(nn.Sequential(*[part for part in reduce if part is not None]))
    logits = [block_of(part) for part in _listed(module, names.logits)]
    found = tuple(block for block in blocks if block is not None and isinstance(block.layer, nn.Conv2d))
    last = tuple(block for block in logits if block is not None and block.norm is None and block.activation is None)
    if squeezing is None or (len(found), len(last)) != (len(blocks), len(logits)):
        return None
    outputs = {len(block.layer.weight) for block in found}
    rows = sum(len(block.layer.weight) for block in last)
    if len(found) < 2 or len(outputs) != 1 or rows != len(found) * outputs.pop():
        return None
    return _Parts(found, squeezing, last)


def _listed(module: nn.Module, path: str) -> list[nn.Module]:
    """The members of a list, or the one layer in its place."""
    from torch import nn

    found = part_at(module, path)
    if isinstance(found, nn.ModuleList):
        return list(found)
    return [] if found is None else [found]


def _said(block: Block) -> str:
    """`3x3 dilated 2 ReLU`."""
    from torch import nn

    conv = block.layer
    size = "x".join(map(str, conv.weight.shape[2:]))
    dilated = f" dilated {conv.dilation[0]}" if isinstance(conv, nn.Conv2d) and conv.dilation[0] > 1 else ""
    return f"{size}{dilated}{'' if block.activation is None else f' {type(block.activation).__name__}'}"
