"""Where a module may come from: its type, its keys, and whether its forward is one that was published."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.rewriting.evidence import forward_fingerprint, keys_said, qualified_name

if TYPE_CHECKING:
    from torch import nn

# Fingerprints of forwards as their authors published them, and whose they are. Python 3.10 writes the targets
# `a, b = ...` with parentheses, which makes a second fingerprint.
_FORWARDS: Mapping[str, str] = MappingProxyType(
    {
        "70fceb6dd76d01cd": "Jongchan/attention-module, CBAM",
        "a746f957f194c413": "Jongchan/attention-module, ChannelGate of CBAM",
        "505d9f7aad23e112": "Jongchan/attention-module, SpatialGate of CBAM",
        "0fe175c4af07dd30": "Jongchan/attention-module, BAM",
        "82709a74893b06f3": "fightingcv_attention, CBAMBlock",
        "8f8f8c6fde2563c7": "fightingcv_attention, CBAMBlock",
        "226ce4032dbf9b37": "fightingcv_attention, ChannelAttention of CBAMBlock",
        "455c07e321a4ee39": "fightingcv_attention, SpatialAttention of CBAMBlock",
        "2cdca4d53d328932": "fightingcv_attention, SpatialAttention of CBAMBlock",
        "6d68f7bf4862e689": "fightingcv_attention, BAMBlock",
        "bfe2b1653a30d367": "landskape-ai/triplet-attention, TripletAttention",
        "0c52e38ee8d78d02": "landskape-ai/triplet-attention, TripletAttention of MODELS",
        "987d42a7749e4c8d": "wofmanaf/SA-Net, sa_layer",
        "9eaffd5b77344c86": "wofmanaf/SA-Net, sa_layer",
        "fb4a8825d15370da": "houqb/CoordAttention, CoordAtt",
        "a618ccc3d7df3dc9": "houqb/CoordAttention, CoordAtt",
        "6ceeb6e4af9eff40": "xvjiarui/GCNet, ContextBlock2d",
    }
)


def source_of(module: nn.Module) -> str | None:
    """The published class that has the same forward, but for comments and layout."""
    return _FORWARDS.get(forward_fingerprint(module) or "")


def seen(module: nn.Module, types: Collection[str] = (), *facts: str) -> tuple[str, ...]:
    """The type, where it is one of these, the keys, the source of forward, where it is known, and more."""
    name, source = qualified_name(module), source_of(module)
    of_type = (f"type {name}",) if name in types else ()
    of_source = () if source is None else (f"forward's source is that of {source}",)
    return (*of_type, keys_said(module), *of_source, *facts)
