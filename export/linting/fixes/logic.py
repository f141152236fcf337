"""Xor by And, Or and Not."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench


def xor(bench: Bench) -> str | None:
    if not bench.lacks(1):
        return None
    either = bench.make("Or", bench.node.input)
    both = bench.make("And", bench.node.input)
    bench.finish("And", [either, bench.make("Not", [both])])
    return "written as one of both, and not both"
