"""Which function of PyTorch is written how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deploy_attn.export.functions import (
    attention,
    cumsum,
    masks,
    moving,
    norms,
    pointwise,
    pooling,
    resampling,
)
from deploy_attn.export.functions.einsum import einsum
from deploy_attn.export.functions.fold import fold
from deploy_attn.export.functions.rule import Rule
from deploy_attn.export.functions.whole_map import avg_pool2d, max_pool2d
from deploy_attn.export.functions.writes import write_slices


def rules() -> Mapping[Callable[..., Any], Rule]:
    """The rule of every function that has one, by the function as PyTorch hands it to a mode."""
    return {**_pools(), **_attention(), **_moves(), **_others()}


def _pools() -> dict[Callable[..., Any], Rule]:
    import torch
    from torch.nn import functional

    average = Rule(avg_pool2d, "kernel_size stride padding ceil_mode count_include_pad divisor_override")
    largest = Rule(max_pool2d, "kernel_size stride padding dilation ceil_mode return_indices")
    cells = "output_size return_indices"
    return {
        functional.avg_pool2d: average,
        functional.max_pool2d: largest,
        torch.max_pool2d: largest,
        functional.adaptive_avg_pool1d: Rule(pooling.adaptive_avg_pool1d, "output_size"),
        functional.adaptive_avg_pool2d: Rule(pooling.adaptive_avg_pool2d, "output_size"),
        functional.adaptive_max_pool1d: Rule(pooling.adaptive_max_pool1d, cells),
        functional.adaptive_max_pool2d: Rule(pooling.adaptive_max_pool2d, cells),
        functional.adaptive_max_pool1d_with_indices: Rule(pooling.adaptive_max_pool_with_indices, cells),
        functional.adaptive_max_pool2d_with_indices: Rule(pooling.adaptive_max_pool_with_indices, cells),
        functional.interpolate: Rule(
            resampling.interpolate,
            "size scale_factor mode align_corners recompute_scale_factor antialias",
        ),
    }


def _attention() -> dict[Callable[..., Any], Rule]:
    from torch.nn import functional

    product = "key value attn_mask dropout_p is_causal scale enable_gqa"
    heads = (
        "key value embed_dim_to_check num_heads in_proj_weight in_proj_bias bias_k bias_v add_zero_attn dropout_p "
        "out_proj_weight out_proj_bias training key_padding_mask need_weights attn_mask use_separate_proj_weight "
        "q_proj_weight k_proj_weight v_proj_weight static_k static_v average_attn_weights is_causal"
    )
    return {
        functional.scaled_dot_product_attention: Rule(attention.scaled_dot_product_attention, product),
        functional.multi_head_attention_forward: Rule(attention.multi_head_attention, heads),
    }


def _moves() -> dict[Callable[..., Any], Rule]:
    import torch
    from torch import Tensor
    from torch.nn import functional

    roll = Rule(moving.roll, "shifts dims")
    shuffle = Rule(moving.channel_shuffle, "groups")
    write = Rule(write_slices, "index value", writes=True)
    return {
        torch.roll: roll,
        Tensor.roll: roll,
        torch.channel_shuffle: shuffle,
        functional.channel_shuffle: shuffle,
        Tensor.__setitem__: write,
        functional.fold: Rule(fold, "output_size kernel_size dilation padding stride"),
    }


def _others() -> dict[Callable[..., Any], Rule]:
    import torch
    from torch import Tensor
    from torch.nn import functional

    running, down = Rule(cumsum.cumsum, "dim dtype"), Rule(pointwise.floor_divide, "other")
    lower, upper = Rule(masks.tril, "diagonal"), Rule(masks.triu, "diagonal")
    statistics = "running_mean running_var weight bias use_input_stats momentum eps"
    return {
        torch.cumsum: running,
        Tensor.cumsum: running,
        torch.floor_divide: down,
        Tensor.floor_divide: down,
        Tensor.__floordiv__: down,
        torch.tril: lower,
        Tensor.tril: lower,
        torch.triu: upper,
        Tensor.triu: upper,
        torch.einsum: Rule(einsum, "first second"),
        functional.one_hot: Rule(masks.one_hot, "num_classes"),
        functional.threshold: Rule(pointwise.threshold, "threshold value inplace"),
        functional.celu: Rule(pointwise.celu, "alpha inplace"),
        functional.group_norm: Rule(norms.group_norm, "num_groups weight bias eps"),
        functional.instance_norm: Rule(norms.instance_norm, statistics),
        functional.rms_norm: Rule(norms.rms_norm, "normalized_shape weight eps"),
    }
