"""Shape of some axes (opset 15) and Split into a number of parts (opset 18) in the words of opset 13."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite

_SHAPE_SLICES, _READS_SLICES = 15, (10, 1)
_SPLIT_COUNTS = 18
_TO_THE_END = 2**31 - 1  # of INT32, which is what TensorRT before 9 makes of a constant


def sliced_shape(bench: Bench) -> str | None:
    import numpy as np

    start, end = bench.attribute("start"), bench.attribute("end")
    if start is None and end is None:
        return None
    if not (bench.lowered_below(_SHAPE_SLICES) or bench.reads_before(*_READS_SLICES)):
        return None
    bounds = {"start": start or 0, "end": _TO_THE_END if end is None else end, "axis": 0}
    whole = bench.make("Shape", bench.node.input)
    bench.finish(
        "Slice", [whole, *(bench.constant(np.array([bound], np.int64), name) for name, bound in bounds.items())]
    )
    return "the whole shape, then a Slice"


def split_sizes(bench: Bench) -> str | None:
    import numpy as np

    count = bench.attribute("num_outputs")
    if count is None or not bench.lowered_below(_SPLIT_COUNTS):
        return None
    if count != len(bench.node.output):
        raise NoExactRewrite(f"num_outputs is {count} and it has {len(bench.node.output)} outputs")
    x, axis = bench.node.input[0], int(bench.attribute("axis", 0))
    extent = _extent(bench, x, axis)
    part = -(-extent // count)
    sizes = [part] * (count - 1) + [extent - part * (count - 1)]
    if sizes[-1] < 0:
        raise NoExactRewrite(f"axis {axis} has {extent} elements, too few for {count} parts")
    bench.finish("Split", [x, bench.constant(np.array(sizes, np.int64), "split")], axis=axis)
    return f"the sizes of its {count} parts given as an input"


def _extent(bench: Bench, name: str, axis: int) -> int:
    shape = bench.shape(name)
    extent = None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]
    if extent is None:
        raise NoExactRewrite(f"num_outputs allows a smaller last part, and the extent of axis {axis} is open")
    return extent
