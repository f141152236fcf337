"""NonMaxSuppression as a plugin."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from tests.export.linting.graphs import findings, model_of, node, one, tensorrt_target


@pytest.mark.parametrize(("version", "expected"), [("8.0", True), ("8.2", True), ("8.4", True), ("8.5", False)])
def test_its_output_is_padded_before_8_5(version: str, expected: bool) -> None:
    model = model_of(
        node("NonMaxSuppression", "boxes scores count", "y"),
        {"boxes": (1, 8, 4), "scores": (1, 2, 8)},
        {"y": (TensorProto.INT64, None)},
        {"count": [4]},
    )
    found = [item for item in findings(model, tensorrt_target(version)) if item.rule == "nms-plugin"]
    assert [item.effect for item in found] == (["wrong result"] if expected else [])


def test_other_nodes_are_not_suppressed() -> None:
    assert "nms-plugin" not in {item.rule for item in findings(one("Relu", (4,)))}
