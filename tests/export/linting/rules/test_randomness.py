"""Random numbers with a seed."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto

from tests.export.linting.graphs import FLOAT, findings, model_of, node, tensorrt_target


@pytest.mark.parametrize(
    ("op_type", "version", "found"),
    [
        ("RandomUniform", "8.0", True),
        ("RandomUniform", "10.3", True),
        ("RandomNormal", "8.5", True),
        ("RandomNormal", "8.2", False),
        ("RandomUniformLike", "8.2", True),
        ("RandomNormalLike", "11.0", True),
    ],
)
def test_a_seed_is_ignored_where_the_operator_exists(op_type: str, version: str, found: bool) -> None:
    like = op_type.endswith("Like")
    for seed in (7.0, None):
        attributes: dict[str, Any] = {} if seed is None else {"seed": seed}
        if not like:
            attributes["shape"] = [2, 3]
        model = model_of(
            node(op_type, "x" if like else "", "y", dtype=TensorProto.FLOAT, **attributes),
            {"x": (2, 3)},
            {"y": (FLOAT, None)},
        )
        effects = [item.effect for item in findings(model, tensorrt_target(version)) if item.rule == "random-seed"]
        assert effects == (["risky"] if found and seed is not None else [])
