"""The operator of the CoT paper, which has no form; copies of the catalogue's source are in `pasted`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.rewriting.families.loaded import tensors_of
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import nn

_HELD = frozenset({"key_embed", "embed", "conv1x1", "bn", "se"})
_KEYS = frozenset({"key_embed.0.weight", "embed.0.weight", "embed.3.weight", "embed.4.weight", "conv1x1.0.weight"})
_REFUSAL = (
    "the layer of the CoT paper multiplies each place's neighbours by weights of its own, for which there is no export "
    "form; write that step with torch.nn.functional.unfold and it is exported as it stands, or train with the "
    "catalogue's cot, which takes a softmax over the map instead"
)


def recognise(module: nn.Module) -> Iterator[Match]:
    """By the names of its layers and weights; nothing is built."""
    if module._modules.keys() >= _HELD and tensors_of(module).keys() >= _KEYS:
        yield Match("cot", seen(module, (), "layers of the paper's operator"), None, _REFUSAL)
