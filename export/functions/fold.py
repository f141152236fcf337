"""Patches put back into a map, their overlaps added: a transposed convolution. ONNX has Col2Im from opset 18 only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy_attn.export.functions.rule import Aim, pair, sizes_of

if TYPE_CHECKING:
    from torch import Tensor


def fold(aim: Aim, x: Tensor, output_size: Any, kernel_size: Any, **settings: Any) -> Tensor | None:
    """`b c*kh*kw places` to `b c h w`: each tap has one weight of 1 in a transposed convolution a channel."""
    import torch
    from torch.nn import functional

    if x.dim() != 3 or aim.open_size:
        return None
    kernel = [int(extent) for extent in pair(kernel_size)]
    pads, dilations, steps = (
        pair(settings.get(name, plain)) for name, plain in (("padding", 0), ("dilation", 1), ("stride", 1))
    )
    spans = [dilation * (extent - 1) + 1 for dilation, extent in zip(dilations, kernel)]
    sizes = [int(extent) + 2 * pad for extent, pad in zip(pair(output_size), pads)]
    counts = [(size - span) // step + 1 for size, span, step in zip(sizes, spans, steps)]
    beyond = [size - span - (count - 1) * step for size, span, count, step in zip(sizes, spans, counts, steps)]
    taps = kernel[0] * kernel[1]
    channels = sizes_of(x)[1] // taps
    one_hot = [[float(tap == place) for place in range(taps)] for tap in range(taps)] * channels
    weight = torch.tensor(one_hot, dtype=x.dtype, device=x.device).reshape(-1, 1, *kernel)
    return functional.conv_transpose2d(
        x.reshape(-1, channels * taps, *counts),
        weight,
        stride=steps,
        padding=pads,
        output_padding=beyond,
        groups=channels,
        dilation=dilations,
    )
