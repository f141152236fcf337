"""Mod of integers by Div, Mul, Add and Sub, which every parser has; of constants, by its value."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite

_SINCE = 10


def remainder(bench: Bench) -> str | None:
    """Div of integers cuts towards zero, so that a - b (a / b) has the sign of a; once more with b added, that of b."""
    import numpy as np
    import onnx

    if not bench.lacks(_SINCE):
        return None
    left, right = bench.node.input
    if bench.elem_type(left) not in (onnx.TensorProto.INT32, onnx.TensorProto.INT64):
        raise NoExactRewrite("a remainder of floats rounds otherwise when it is computed from their quotient")
    of_dividend = bool(bench.attribute("fmod", 0))
    dividend, divisor = bench.value(left), bench.value(right)
    if dividend is not None and divisor is not None and divisor.all():
        value = np.fmod(dividend, divisor) if of_dividend else np.mod(dividend, divisor)
        bench.finish("Constant", [], value=onnx.numpy_helper.from_array(np.asarray(value)))
        return "its value, for its inputs are constants"
    if not of_dividend:
        left = bench.make("Add", [_cut(bench, left, right), right])
    bench.finish("Sub", [left, _multiple(bench, left, right)])
    return "written as what is left after Div"


def _cut(bench: Bench, left: str, right: str) -> str:
    return bench.make("Sub", [left, _multiple(bench, left, right)])


def _multiple(bench: Bench, left: str, right: str) -> str:
    return bench.make("Mul", [bench.make("Div", [left, right]), right])
