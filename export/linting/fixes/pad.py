"""Pad with its axes as an input (opset 18) written with pads for every axis."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite

_SINCE, _READS_AXES = 18, (10, 4)


def pads_for_every_axis(bench: Bench) -> str | None:
    import numpy as np

    name = bench.given(3)
    if name is None or not (bench.lowered_below(_SINCE) or bench.reads_before(*_READS_AXES)):
        return None
    axes, pads = bench.value(name), bench.value(bench.node.input[1])
    if axes is None or pads is None:
        raise NoExactRewrite("its pads or axes are computed when the network runs")
    rank = bench.rank(bench.node.input[0])
    if pads.size != 2 * axes.size:
        raise NoExactRewrite(f"it has {pads.size} pads for {axes.size} axes")
    whole = np.zeros((2, rank), np.int64)
    whole[:, axes.ravel() % rank] = pads.reshape(2, -1)
    inputs = [bench.node.input[0], bench.constant(whole.ravel(), "pads"), *filter(None, [bench.given(2)])]
    bench.finish("Pad", inputs, mode=bench.attribute("mode"))
    return "pads given for every axis"
