"""Normalisation layers: layouts that a parser takes for others, and a plugin in a layer's place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Effect, Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label
from deploy_attn.export.linting.origin import origin_of
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

_PER_CHANNEL_OPSET = 21
_READS_PER_CHANNEL = (10, 9)
_NATIVE_INSTANCE = (10, 0)
_PLUGIN_RANKS = range(3, 6)
_DECOMPOSE = "write it as ReduceMean, Sub, Mul and Sqrt, as --fix does, kept in FP32"


def group_layouts(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """From opset 21 on scale and bias have an entry a channel, before that one a group.

    TensorRT reads both from 10.9 on, by the opset of the model: so does the
    parser of TensorRT-RTX 1.7.1.
    """
    if graph.opset < _PER_CHANNEL_OPSET or parser.version >= _READS_PER_CHANNEL:
        return
    for node in graph.named("GroupNormalization"):
        if parser.knows(node.op_type) and not _is_group_a_channel(graph, node):
            yield Finding(
                "group-normalization-layout",
                label(node),
                node.op_type,
                "wrong result",
                "TensorRT before 10.9 takes scale and bias as one entry a group, the form of opset 18; "
                "here they have one a channel, so that channels are scaled by the entries of others, if it builds",
                "write it as Reshape, InstanceNormalization's formula, Reshape, Mul and Add, as --fix does",
            )


def instance_plugin(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Before 10.0 the layer is a plugin, with conditions of its own."""
    if parser.version >= _NATIVE_INSTANCE:
        return
    for node in graph.named("InstanceNormalization"):
        rank = len(graph.view.shape(given(node, 0) or "") or ()) or None
        computed = [name for name in node.input[1:3] if origin_of(graph, name) in ("input", "computed")]
        effect: Effect = "refused"
        if computed:
            why = "its scale and bias have to be initializers"
        elif rank is not None and rank not in _PLUGIN_RANKS:
            why = f"it takes inputs of rank 3 to 5, here it is {rank}"
        else:
            effect = "risky"
            why = "plugins have to be initialised before parsing and before loading, and in FP16 its errors are large"
        yield Finding(
            "instance-normalization-plugin",
            label(node),
            node.op_type,
            effect,
            f"TensorRT before 10.0 makes it the plugin InstanceNormalization_TRT: {why}",
            _DECOMPOSE,
        )


def layer_precision(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """`stash_type` names the type of the statistics; TensorRT has them in FP32."""
    import onnx

    for node in graph.named("LayerNormalization"):
        single = onnx.TensorProto.FLOAT
        if parser.knows(node.op_type) and attribute(node, "stash_type", single) != single:
            yield Finding(
                "layer-normalization-stash",
                label(node),
                node.op_type,
                "risky",
                "TensorRT computes the statistics in FP32, whatever stash_type says",
                "leave stash_type at 1 (FP32), and hold the result against a reference that has it so",
            )


def _is_group_a_channel(graph: LintGraph, node: onnx.NodeProto) -> bool:
    """Whether both layouts are the same."""
    shape, groups = graph.view.shape(given(node, 0) or ""), attribute(node, "num_groups")
    return shape is not None and len(shape) > 1 and shape[1] is not None and shape[1] == groups
