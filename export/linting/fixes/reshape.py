"""Reshape without allowzero (opset 14), which TensorRT 8.2 cannot do without or does not have."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite

_SINCE = 14
_HAS_DEFAULT = (8, 4)


def without_allowzero(bench: Bench) -> str | None:
    has, asked = bench.attribute("allowzero"), bool(bench.attribute("allowzero", 0))
    lowered = bench.lowered_below(_SINCE)
    if lowered and has is None:
        return None
    if not lowered and not (bench.reads_before(*_HAS_DEFAULT) and bench.goal >= _SINCE and not asked):
        return None
    if asked:
        _refuse_zeros(bench)
    bench.finish("Reshape", bench.node.input, allowzero=None if lowered else 0)
    return "allowzero dropped" if lowered else "allowzero given as 0, its default"


def _refuse_zeros(bench: Bench) -> None:
    """Raises where a zero may be in the shape: with allowzero it is an extent, without it copies one."""
    shape = bench.value(bench.node.input[1])
    if shape is None:
        raise NoExactRewrite("it has allowzero and a shape that is computed when the network runs")
    if not shape.all():
        raise NoExactRewrite("it has allowzero and an extent of 0, which without allowzero copies one")
