"""Nodes in training form, and outputs that exist for training only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label
from deploy_attn.export.linting.origin import origin_of
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

_CHECKS_BATCH_NORM = (9, 1)
_EXPORT = "export the network in eval mode"


def training(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Dropout and BatchNormalization that compute what a network in training would."""
    for node in graph.named("Dropout"):
        mode = given(node, 2)
        value = None if mode is None else graph.view.value(mode)
        if mode is not None and (value is None or value.any()) and origin_of(graph, mode) != "unknown":
            yield _training(node, "refused", "TensorRT has no Dropout in training, nor one that decides when it runs")
    for node in graph.named("BatchNormalization"):
        if attribute(node, "training_mode", 0):
            if parser.version >= _CHECKS_BATCH_NORM:
                yield _training(node, "refused", "TensorRT has no BatchNormalization in training")
            else:
                yield _training(
                    node, "wrong result", "TensorRT before 9.1 ignores training_mode: it uses the given statistics"
                )


def extra_outputs(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """LayerNormalization makes its first output only."""
    if not parser.knows("LayerNormalization"):
        return
    for node in graph.named("LayerNormalization"):
        if any(node.output[1:]):
            yield Finding(
                "layer-norm-outputs",
                label(node),
                node.op_type,
                "refused",
                "TensorRT makes only the first output of LayerNormalization; the others are for training",
                "remove Mean and InvStdDev, or compute them with ReduceMean, as --fix does",
            )


def _training(node: onnx.NodeProto, effect: str, why: str) -> Finding:
    return Finding("training-mode", label(node), node.op_type, effect, why, _EXPORT)  # type: ignore[arg-type]
