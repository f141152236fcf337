"""Holds the rules of integer products and powers, and of Attention's rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.export.linting.graphs import found, model_of, node, tensorrt_target

FLOAT, HALF, INT32, INT64 = (getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "INT32", "INT64"))


@pytest.mark.parametrize("op_type", ["MatMul", "Gemm"])
@pytest.mark.parametrize(("kind", "caught"), [(INT32, True), (INT64, True), (FLOAT, False), (HALF, False)])
@pytest.mark.parametrize("version", ["8.2.1", "11.0.0"])
def test_products_of_integers_are_refused(op_type: str, kind: int, caught: bool, version: str) -> None:
    model = model_of(node(op_type, "a b", "y"), {"a": (kind, (2, 3)), "b": (kind, (3, 4))}, {"y": (kind, None)})
    assert ("integer-product" in found(model, tensorrt_target(version))) == caught


@pytest.mark.parametrize(
    ("base", "exponent", "version", "caught"),
    [
        (FLOAT, np.float32(2), "8.2.1", False),
        (FLOAT, np.int64(2), "8.2.1", True),
        (FLOAT, np.int64(2), "10.7.0", True),
        (FLOAT, np.int64(2), "10.8.0", False),
        (INT32, np.int32(2), "8.2.1", True),
        (INT32, np.int32(2), "10.11.0", True),
        (INT32, np.int32(2), "10.12.0", False),
    ],
)
def test_powers_of_integers(base: int, exponent: np.generic, version: str, caught: bool) -> None:
    model = model_of(node("Pow", "x e", "y"), {"x": (base, (2,))}, {"y": (base, None)}, {"e": np.asarray(exponent)})
    assert ("integer-power" in found(model, tensorrt_target(version))) == caught


@pytest.mark.parametrize(
    ("shape", "version", "caught"),
    [((1, 4, 16), "10.14.0", True), ((1, 2, 4, 8), "10.14.0", False), ((1, 4, 16), "10.13.0", False)],
)
def test_attention_is_documented_for_4d(shape: tuple[int, ...], version: str, caught: bool) -> None:
    heads: dict[str, Any] = {"q_num_heads": 2, "kv_num_heads": 2} if len(shape) == 3 else {}
    inputs = dict.fromkeys("qkv", (HALF, shape))
    model = model_of(node("Attention", "q k v", "y", **heads), inputs, {"y": (HALF, None)}, opset=23, ir_version=11)
    assert ("attention-rank" in found(model, tensorrt_target(version))) == caught
