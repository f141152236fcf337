"""TopK of the smallest by TopK of the largest of the negated input."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench

_READS_LARGEST = (8, 5)


def smallest_by_largest(bench: Bench) -> str | None:
    """Exact for floats: negation loses nothing, and ties keep their order, the lower index first."""
    if bench.attribute("largest", 1) or not bench.reads_before(*_READS_LARGEST):
        return None
    node = bench.node
    bench.float_type(node.input[0])
    values, indices = bench.made(0), bench.made(1)
    negated = bench.fresh("largest")
    kept = {name: bench.attribute(name) for name in ("axis", "sorted")}
    bench.make_all("TopK", [bench.make("Neg", node.input[:1]), node.input[1]], [negated, indices or ""], **kept)
    if values:
        bench.make("Neg", [negated], values)
    return "takes the largest of the negated input, and negates what it takes"
