"""The rules: each takes a graph and the target's parser, and yields what it finds.

A rule is a function in a file named for its subject, and one line in RULES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deploy_attn.engines.target import Target
from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph
from deploy_attn.export.linting.hazards import hazards
from deploy_attn.export.linting.parser import Parser
from deploy_attn.export.linting.rules.booleans import boolean_data, boolean_operands
from deploy_attn.export.linting.rules.cast import cast_types, half_weights
from deploy_attn.export.linting.rules.clip import celu, clip_bounds
from deploy_attn.export.linting.rules.constants import constant_forms, float_ranges, inputs_to_know, shapes_to_know
from deploy_attn.export.linting.rules.convolution import convolution_dimensions, convolution_weights
from deploy_attn.export.linting.rules.detection import suppression_plugin
from deploy_attn.export.linting.rules.einsum import equations
from deploy_attn.export.linting.rules.inference import extra_outputs, training
from deploy_attn.export.linting.rules.integers import clamped_constants, remainders, wide_ports
from deploy_attn.export.linting.rules.loops import branches, loop_outputs, recurrent_layers
from deploy_attn.export.linting.rules.matmul import attention_rank, integer_powers, integer_products
from deploy_attn.export.linting.rules.normalization import group_layouts, instance_plugin, layer_precision
from deploy_attn.export.linting.rules.opset import versions
from deploy_attn.export.linting.rules.pad import pad_amounts, pad_axes, pad_modes, pad_values
from deploy_attn.export.linting.rules.pooling import average_pads, pool_forms, pool_windows
from deploy_attn.export.linting.rules.quantization import zero_points
from deploy_attn.export.linting.rules.randomness import seeds
from deploy_attn.export.linting.rules.reductions import axes_as_input, axes_left_out, running_sums
from deploy_attn.export.linting.rules.reshape import allowzero, shape_of_some_axes
from deploy_attn.export.linting.rules.resize import grid_rank, resize_attributes, resize_modes, resize_scales
from deploy_attn.export.linting.rules.scatter import negative_indices, scatter_reductions
from deploy_attn.export.linting.rules.support import functions, known_to_onnx, operators
from deploy_attn.export.linting.rules.topk import integer_data, open_arguments, smallest, topk_limits
from deploy_attn.export.linting.rules.types import types
from deploy_attn.export.linting.rules.unsigned import port_types, uint8_casts

Rule = Callable[[LintGraph, Parser], Iterator[Finding]]
TargetRule = Callable[[LintGraph, Target], Iterator[Finding]]

# Rules about every target, whatever runs there; `memory_rule` comes on top, with its estimate.
TARGET_RULES: tuple[TargetRule, ...] = (versions, known_to_onnx, hazards)

# Rules about TensorRT's parser, in the order in which their findings matter.
PARSER_RULES: tuple[Rule, ...] = (
    operators,
    functions,
    types,
    # accepted and computed wrongly
    axes_as_input,
    axes_left_out,
    shape_of_some_axes,
    smallest,
    scatter_reductions,
    pad_axes,
    pad_values,
    group_layouts,
    clamped_constants,
    negative_indices,
    suppression_plugin,
    instance_plugin,
    layer_precision,
    wide_ports,
    seeds,
    running_sums,
    # restrictions
    allowzero,
    boolean_data,
    boolean_operands,
    integer_data,
    open_arguments,
    pad_amounts,
    pad_modes,
    port_types,
    remainders,
    topk_limits,
    uint8_casts,
    attention_rank,
    average_pads,
    branches,
    cast_types,
    celu,
    clip_bounds,
    constant_forms,
    convolution_dimensions,
    convolution_weights,
    equations,
    extra_outputs,
    float_ranges,
    grid_rank,
    half_weights,
    inputs_to_know,
    integer_powers,
    integer_products,
    loop_outputs,
    pool_forms,
    pool_windows,
    recurrent_layers,
    resize_attributes,
    resize_modes,
    resize_scales,
    shapes_to_know,
    training,
    zero_points,
)
