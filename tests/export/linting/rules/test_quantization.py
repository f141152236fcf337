"""Holds the rules of quantisation: symmetric, with a stated zero point."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.linting.graphs import found, model_of, node, tensorrt_target


@pytest.mark.parametrize(
    ("point", "scale", "version", "caught"),
    [
        pytest.param(0, 0.1, "8.2.1", False, id="symmetric"),
        pytest.param(3, 0.1, "8.2.1", True, id="a zero point"),
        pytest.param(3, 0.1, "11.0.0", True, id="a zero point at 11"),
        pytest.param(None, 0.1, "8.5.2", True, id="none at 8.5"),
        pytest.param(None, 0.1, "8.6.2", False, id="none at 8.6"),
        pytest.param(0, 0.0, "8.2.1", True, id="a scale of 0"),
    ],
)
def test_quantisation(point: int | None, scale: float, version: str, caught: bool) -> None:
    constants = {"s": np.float32(scale), **({} if point is None else {"z": np.int8(point)})}
    tail = "s" if point is None else "s z"
    nodes = [node("QuantizeLinear", f"x {tail}", "q"), node("DequantizeLinear", f"q {tail}", "y")]
    model = model_of(nodes, {"x": (2, 2)}, {"y": (1, None)}, constants)
    assert ("quantization" in found(model, tensorrt_target(version))) == caught
