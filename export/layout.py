"""The layouts in which a module takes a map: channels second, channels last, or places as a row of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Layout = Literal["b c h w", "b h w c", "b n c"]


def laid_out(x: Tensor, layout: Layout) -> Tensor:
    """A map of `b c h w` in another layout."""
    if layout == "b c h w":
        return x
    channels_last = x.permute(0, 2, 3, 1).contiguous()
    return channels_last if layout == "b h w c" else channels_last.flatten(1, 2)


def map_shape(shape: Sequence[int], layout: Layout) -> tuple[int, int, int, int] | None:
    """The shape `b c h w` of what has this shape in a layout, tokens as one column; None where the rank is another."""
    if len(shape) != len(layout.split()):
        return None
    if layout == "b n c":
        batch, places, channels = shape
        return batch, channels, places, 1
    batch, *rest = shape
    channels, height, width = rest if layout == "b c h w" else (rest[2], rest[0], rest[1])
    return batch, channels, height, width
