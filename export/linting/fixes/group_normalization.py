"""GroupNormalization in both layouts: one scale a group (opset 18 to 20), one a channel (from opset 21 on)."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite
from deploy_attn.export.linting.fixes.half import widened, working_type
from deploy_attn.export.linting.fixes.normalization import factor, reshape, standardise

_FIRST, _PER_CHANNEL = 18, 21
_READS_PER_CHANNEL = (10, 9)


def group_normalization(bench: Bench) -> str | None:
    """Wu and He. Statistics over a group's channels and every axis after them."""
    per_channel = bench.aim.source >= _PER_CHANNEL
    misread = per_channel and (bench.goal < _PER_CHANNEL or bench.reads_before(*_READS_PER_CHANNEL))
    if not (bench.lacks(_FIRST) or misread):
        return None
    x = bench.node.input[0]
    groups, channels = int(bench.attribute("num_groups", 0)), _channels(bench, x, per_channel)
    if groups < 1 or (channels is not None and channels % groups):
        raise NoExactRewrite(f"its {channels} channels do not divide into {groups} groups")
    wide, kind = widened(bench, x)
    unit = standardise(bench, _rows(bench, wide, groups), [2], float(bench.attribute("epsilon", 1e-5)), kind).result
    rows = groups
    if per_channel:
        if channels is None:
            raise NoExactRewrite("how many channels its input has is not known")
        rows = channels
        unit = _rows(bench, unit, rows) if rows != groups else unit
    scale, bias = (factor(bench, name, [rows, 1]) for name in bench.node.input[1:3])
    result = bench.make("Add", [bench.make("Mul", [unit, scale]), bias])
    _finish(bench, result, x)
    return f"decomposed ({groups} groups, a scale for each {'channel' if per_channel else 'group'})"


def _rows(bench: Bench, name: str, rows: int) -> str:
    """A tensor as N x rows x rest."""
    import numpy as np

    return reshape(bench, name, bench.constant(np.array([0, rows, -1], np.int64), "rows"))


def _finish(bench: Bench, result: str, like: str) -> None:
    """The result in the shape and type of the node's input."""
    import numpy as np

    known = bench.shape(like)
    if known is not None and sum(extent is None for extent in known[1:]) <= 1:
        shape = bench.constant(np.array([0, *(-1 if e is None else e for e in known[1:])], np.int64), "shape")
    else:
        shape = bench.make("Shape", [like])
    own = bench.float_type(like)
    if working_type(own) == own:
        reshape(bench, result, shape, bench.node.output[0])
    else:
        bench.finish("Cast", [reshape(bench, result, shape)], to=own)


def _channels(bench: Bench, x: str, per_channel: bool) -> int | None:
    """How many channels the input has, as itself or a scale for each says."""
    shape = bench.shape(x)
    if shape is not None and len(shape) > 1 and shape[1] is not None:
        return shape[1]
    scale = bench.shape(bench.node.input[1]) if per_channel else None
    return scale[0] if scale else None
