"""QuantizeLinear and DequantizeLinear: symmetric only."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, given, label
from deploy_attn.export.linting.parser import Parser

_OPTIONAL_ZERO_POINT = (8, 6)


def zero_points(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """The zero point has to be zero, and stated before 8.6; scales have to be positive."""
    for node in graph.named("QuantizeLinear", "DequantizeLinear"):
        point, scale = given(node, 2), graph.view.value(given(node, 1) or "")
        value = None if point is None else graph.view.value(point)
        if value is not None and value.any():
            why, remedy = "TensorRT quantises symmetrically: the zero point has to be 0", "quantise to INT8, symmetric"
        elif point is None and parser.version < _OPTIONAL_ZERO_POINT:
            why, remedy = "TensorRT before 8.6 needs the zero point as an input", "give an INT8 zero point of 0"
        elif scale is not None and not (scale > 0).all():
            why, remedy = "TensorRT takes positive scales only", "clamp the scales to a small positive number"
        else:
            continue
        yield Finding("quantization", label(node), node.op_type, "refused", why, remedy)
