"""Conv, ConvTranspose and DeformConv: dimensions, weights, pads."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label
from deploy_attn.export.linting.origin import origin_of
from deploy_attn.export.linting.parser import Parser
from deploy_attn.export.linting.rules.constants import must_be_constant

_ANY_WEIGHTS = (8, 5)
_MOST_RANK = 5  # b c d h w
_DEFORM_RANK = 4


def convolution_dimensions(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Convolutions are 1D (as 2D), 2D or 3D; deformable ones at most 2D, evenly padded."""
    for node in graph.named("Conv", "ConvTranspose", "DeformConv"):
        deform = node.op_type == "DeformConv"
        shape, most = graph.view.shape(given(node, 1) or ""), _DEFORM_RANK if deform else _MOST_RANK
        if shape is not None and len(shape) > most:
            yield Finding(
                "convolution-dimensions",
                label(node),
                node.op_type,
                "refused",
                f"TensorRT convolves over at most {most - 2} dimensions here; this one has {len(shape) - 2}",
                "split it into convolutions of fewer dimensions",
            )
        pads = attribute(node, "pads", [])
        half = len(pads) // 2
        if deform and list(pads[:half]) != list(pads[half:]):
            yield Finding(
                "deform-conv-pads",
                label(node),
                node.op_type,
                "refused",
                f"TensorRT pads DeformConv evenly on both sides of an axis; these pads are {list(pads)}",
                "pad with a Pad node before it",
            )


def convolution_weights(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Before 8.5 weights and bias have to be initializers, save those that a DequantizeLinear makes."""
    if parser.version >= _ANY_WEIGHTS:
        return
    for node in graph.named("Conv", "ConvTranspose"):
        for index, name in ((1, "W"), (2, "B")):
            tensor = given(node, index)
            maker = graph.view.maker(tensor) if tensor else None
            dequantized = maker is not None and maker.op_type == "DequantizeLinear"
            if tensor and not (dequantized and origin_of(graph, tensor) == "computed"):
                yield from must_be_constant(graph, parser, node, index, name)
