"""LayerNormalization, RMSNormalization and InstanceNormalization by their formulas.

The variance is the mean of centred squares: the difference of two means of
squares loses every digit where the mean is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite
from deploy_attn.export.linting.fixes.half import finished, widened, working_type

_LAYER, _RMS = 17, 23
_NATIVE_INSTANCE = (10, 0)  # older parsers run a plugin


@dataclass(frozen=True)
class Standardised:
    """Tensors of (x - mean) / deviation."""

    result: str
    mean: str
    deviation: str


def layer_normalization(bench: Bench) -> str | None:
    """Ba et al. Stage one in FP32, as stash_type asks; scale and bias in the type of the input."""
    extra = bench.found and any(bench.node.output[1:])
    if not (bench.lacks(_LAYER) or (extra and bench.aim.parser is not None)):
        return None
    x, scale, bias = bench.node.input[0], bench.node.input[1], bench.given(2)
    stash = _stashed(bench)
    axes = _from_axis(bench, x, int(bench.attribute("axis", -1)))
    own = bench.float_type(x)
    wide = x if own == stash else bench.cast(x, stash)
    unit = standardise(bench, wide, axes, float(bench.attribute("epsilon", 1e-5)), stash)
    narrow = unit.result if own == stash else bench.cast(unit.result, own)
    if bias is None:
        _finish_first(bench, "Mul", narrow, scale)
    else:
        _finish_first(bench, "Add", bench.make("Mul", [narrow, scale]), bias)
    if bench.made(1):
        bench.make("Identity", [unit.mean], bench.made(1))
    if bench.made(2):
        bench.make("Div", [bench.scalar(1.0, stash, "one"), unit.deviation], bench.made(2))
    return f"decomposed over axes {', '.join(map(str, axes))}"


def rms_normalization(bench: Bench) -> str | None:
    """x / sqrt(mean(x^2) + epsilon) times scale; Zhang and Sennrich."""
    if not bench.lacks(_RMS):
        return None
    x, scale = bench.node.input[0], bench.node.input[1]
    stash = _stashed(bench)
    axes = _from_axis(bench, x, int(bench.attribute("axis", -1)))
    own = bench.float_type(x)
    wide = x if own == stash else bench.cast(x, stash)
    deviation = _deviation(bench, wide, axes, float(bench.attribute("epsilon", 1e-5)), stash)
    unit = bench.make("Div", [wide, deviation])
    bench.finish("Mul", [unit if own == stash else bench.cast(unit, own), scale])
    return f"decomposed over axes {', '.join(map(str, axes))}"


def instance_normalization(bench: Bench) -> str | None:
    """Ulyanov et al. Statistics over every axis after the channels."""
    if not bench.reads_before(*_NATIVE_INSTANCE):
        return None
    x, scale, bias = bench.node.input[:3]
    rank = bench.rank(x)
    if rank < 3:
        raise NoExactRewrite(f"its input has rank {rank}; the rewrite is one for maps, rank 3 and above")
    wide, kind = widened(bench, x)
    unit = standardise(bench, wide, range(2, rank), float(bench.attribute("epsilon", 1e-5)), kind)
    shape = [-1] + [1] * (rank - 2)
    scaled = bench.make("Mul", [unit.result, factor(bench, scale, shape)])
    finished(bench, "Add", scaled, factor(bench, bias, shape))
    return "decomposed"


def standardise(bench: Bench, x: str, axes: Sequence[int], epsilon: float, kind: int) -> Standardised:
    """(x - mean) / sqrt(variance + epsilon) over some axes, which stay as ones."""
    mean = bench.mean(x, axes)
    centred = bench.make("Sub", [x, mean])
    deviation = _deviation(bench, centred, axes, epsilon, kind)
    return Standardised(bench.make("Div", [centred, deviation]), mean, deviation)


def factor(bench: Bench, name: str, shape: Sequence[int]) -> str:
    """A scale or bias in its working type and another shape; a constant is made so here."""
    import numpy as np
    import onnx

    value = bench.value(name)
    if value is None:
        wide, _ = widened(bench, name)
        return reshape(bench, wide, bench.constant(np.array(shape, np.int64), "shape"))
    kind = onnx.helper.tensor_dtype_to_np_dtype(working_type(bench.float_type(name)))
    return bench.constant(value.astype(kind).reshape(shape), name.rpartition("/")[2])


def reshape(bench: Bench, name: str, shape: str, output: str | None = None) -> str:
    """A Reshape that every parser reads: TensorRT 8.2 asks for allowzero where the opset has it."""
    return bench.make("Reshape", [name, shape], output, **({"allowzero": 0} if bench.goal >= 14 else {}))


def _deviation(bench: Bench, centred: str, axes: Sequence[int], epsilon: float, kind: int) -> str:
    variance = bench.mean(bench.make("Mul", [centred, centred]), axes)
    return bench.make("Sqrt", [bench.make("Add", [variance, bench.scalar(epsilon, kind, "epsilon")])])


def _stashed(bench: Bench) -> int:
    import onnx

    kind = int(bench.attribute("stash_type", onnx.TensorProto.FLOAT))
    if kind != onnx.TensorProto.FLOAT:
        raise NoExactRewrite(f"its stash_type is {kind}; the rewrite computes in FP32, which is 1")
    return kind


def _from_axis(bench: Bench, name: str, axis: int) -> list[int]:
    """The axes from one to the last; counted from the end where the rank is not known."""
    if axis < 0 and bench.shape(name) is None:
        return list(range(axis, 0))
    rank = bench.rank(name)
    if not -rank <= axis < rank:
        raise NoExactRewrite(f"its axis {axis} is none of a tensor of rank {rank}")
    return list(range(axis % rank, rank))


def _finish_first(bench: Bench, op_type: str, left: str, right: str) -> None:
    """The node that makes the first output only; the others have nodes of their own."""
    bench.make(op_type, [left, right], bench.node.output[0])
