"""Reduce* with axes as an input (opset 18) written with axes as an attribute (opset 13)."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite

_AXES_AS_INPUT = 18
_READS_NOOP = (10, 0)
# What these make of no axis at all is the input itself. Whether the others still square or take
# logarithms there is read differently by different engines.
_NOTHING_LEFT = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")


def sum_of_nothing(bench: Bench) -> str | None:
    """ReduceSum keeps its form of opset 13, which every parser reads; noop_with_empty_axes no 8.x reads."""
    name = bench.given(1)
    axes = None if name is None else bench.value(name)
    empty = name is None or (axes is not None and not axes.size)
    if not (empty and bench.attribute("noop_with_empty_axes", 0) and bench.reads_before(*_READS_NOOP)):
        return None
    bench.finish("Identity", bench.node.input[:1])
    return "without axes it changes nothing: written as Identity"


def axes_as_attribute(bench: Bench) -> str | None:
    """The same axes as an attribute; none of them means every axis, or nothing at all, as the node says."""
    if not bench.lowered_below(_AXES_AS_INPUT):
        return None
    node, name = bench.node, bench.given(1)
    axes = None if name is None else bench.value(name)
    if name is not None and axes is None:
        raise NoExactRewrite(f"its axes {name} are computed when the network runs; an attribute has to be constant")
    if axes is not None and axes.size:
        listed = [int(axis) for axis in axes.ravel()]
        bench.finish(node.op_type, node.input[:1], axes=listed, keepdims=int(bench.attribute("keepdims", 1)))
        return f"axes {', '.join(map(str, listed))} given as an attribute"
    if not bench.attribute("noop_with_empty_axes", 0):
        bench.finish(node.op_type, node.input[:1], keepdims=int(bench.attribute("keepdims", 1)))
        return "reduces over every axis, which its form without axes says"
    if node.op_type not in _NOTHING_LEFT:
        raise NoExactRewrite("it has no axes and noop_with_empty_axes, which engines read differently for it")
    bench.finish("Identity", node.input[:1])
    return "without axes it changes nothing: written as Identity"
