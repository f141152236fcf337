"""Decompositions of half-precision operators compute in FP32: only their result is rounded, as the operator's is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy_attn.export.linting.fixes.bench import Bench

if TYPE_CHECKING:
    import onnx

_HALVES = ("FLOAT16", "BFLOAT16")


def working_type(elem_type: int) -> int:
    """FP32 for a half type, else the type itself."""
    import onnx

    kinds: type[onnx.TensorProto] = onnx.TensorProto
    return kinds.FLOAT if kinds.DataType.Name(elem_type) in _HALVES else elem_type


def widened(bench: Bench, name: str) -> tuple[str, int]:
    """A float tensor in its working type, and that type."""
    found = bench.float_type(name)
    wide = working_type(found)
    return (name, wide) if wide == found else (bench.cast(name, wide), wide)


def finished(bench: Bench, op_type: str, left: str, right: str) -> None:
    """The last operation of a decomposition, with its result rounded to the type of the node's first input."""
    found = bench.float_type(bench.node.input[0])
    if working_type(found) == found:
        bench.finish(op_type, [left, right])
    else:
        bench.finish("Cast", [bench.make(op_type, [left, right])], to=found)
