"""Trilu by a constant mask."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite

_SINCE = 14


def trilu(bench: Bench) -> str | None:
    import numpy as np
    import onnx

    if not bench.lacks(_SINCE):
        return None
    x, place = bench.node.input[0], bench.given(1)
    k = np.zeros((), np.int64) if place is None else bench.value(place)
    extents = (bench.shape(x) or ())[-2:]
    if k is None or len(extents) < 2 or None in extents:
        raise NoExactRewrite("its diagonal or the extents of its last two axes are not constant")
    kind = bench.elem_type(x)
    if not kind:
        raise NoExactRewrite("the type of its input is not known")
    ones = np.ones([extent or 0 for extent in extents], bool)
    diagonal = int(k.ravel()[0])
    kept = bench.constant(np.triu(ones, diagonal) if bench.attribute("upper", 1) else np.tril(ones, diagonal), "kept")
    if kind == onnx.TensorProto.BOOL:
        bench.finish("And", [x, kept])
    else:
        bench.finish("Where", [kept, x, bench.scalar(0, kind, "zero")])
    return "its triangle chosen by a constant mask"
