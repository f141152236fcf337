"""Which fix serves which operator, and what a parser or an older opset has to lack for it to be needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from deploy_attn.export.linting.fixes import activations, masks, normalization, reductions, shapes, values
from deploy_attn.export.linting.fixes.bench import Bench
from deploy_attn.export.linting.fixes.constants import as_tensor
from deploy_attn.export.linting.fixes.group_normalization import group_normalization
from deploy_attn.export.linting.fixes.logic import xor
from deploy_attn.export.linting.fixes.pad import pads_for_every_axis
from deploy_attn.export.linting.fixes.remainder import remainder
from deploy_attn.export.linting.fixes.reshape import without_allowzero
from deploy_attn.export.linting.fixes.resize import for_every_axis
from deploy_attn.export.linting.fixes.scatter import without_reduction
from deploy_attn.export.linting.fixes.topk import smallest_by_largest

# What it did, or None where the node may stay; raises NoExactRewrite.
Fix = Callable[[Bench], str | None]

_REDUCED = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

FIXES: Mapping[str, Fix] = MappingProxyType(
    {
        **{f"Reduce{name}": reductions.axes_as_attribute for name in _REDUCED},
        "CastLike": values.cast_like,
        "Constant": as_tensor,
        "Gelu": activations.gelu,
        "GridSample": values.grid_sample,
        "GroupNormalization": group_normalization,
        "HardSwish": activations.hard_swish,
        "InstanceNormalization": normalization.instance_normalization,
        "LayerNormalization": normalization.layer_normalization,
        "Mish": activations.mish,
        "Mod": remainder,
        "Pad": pads_for_every_axis,
        "RMSNormalization": normalization.rms_normalization,
        "ReduceSum": reductions.sum_of_nothing,
        "Reshape": without_allowzero,
        "Resize": for_every_axis,
        "RoiAlign": values.roi_align,
        "ScatterElements": without_reduction,
        "ScatterND": without_reduction,
        "Shape": shapes.sliced_shape,
        "Split": shapes.split_sizes,
        "Swish": activations.swish,
        "TopK": smallest_by_largest,
        "Trilu": masks.trilu,
        "Xor": xor,
    }
)
