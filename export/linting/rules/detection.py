"""NonMaxSuppression as a plugin."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, label
from deploy_attn.export.linting.parser import Parser

_NATIVE = (8, 5)


def suppression_plugin(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Before 8.5 it is the plugin EfficientNMS_ONNX_TRT, whose output is padded."""
    if parser.version >= _NATIVE:
        return
    for node in graph.named("NonMaxSuppression"):
        yield Finding(
            "nms-plugin",
            label(node),
            node.op_type,
            "wrong result",
            "TensorRT before 8.5 makes it a plugin, experimental by its own words: the output has a fixed number "
            "of rows, padded, where ONNX gives as many as were kept",
            "end the network before it and suppress outside, or build with TensorRT 8.5",
        )
