"""Random numbers with a seed."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, label
from deploy_attn.export.linting.parser import Parser

_SOURCES = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def seeds(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """No version reads the seed."""
    for node in graph.named(*_SOURCES):
        if attribute(node, "seed") is not None and parser.knows(node.op_type):
            yield Finding(
                "random-seed",
                label(node),
                node.op_type,
                "risky",
                "TensorRT ignores the seed: the numbers differ from the file's and from run to run",
                "draw the numbers outside the network and give them as an input",
            )
