"""GroupNormalization, InstanceNormalization and LayerNormalization in each version."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.export.linting.graphs import FLOAT, Shape, findings, found, model_of, node, tensorrt_target


def effect(model: onnx.ModelProto, version: str, rule: str) -> str | None:
    effects = [finding.effect for finding in findings(model, tensorrt_target(version)) if finding.rule == rule]
    assert len(effects) <= 1
    return effects[0] if effects else None


def ones(count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.ones(count, np.float32)


def group(opset: int, entries: int, groups: int = 2) -> onnx.ModelProto:
    constants = {"scale": ones(entries), "bias": ones(entries)}
    return model_of(
        node("GroupNormalization", "x scale bias", "y", num_groups=groups),
        {"x": (1, 8, 4, 4)},
        {"y": (FLOAT, None)},
        constants,
        opset,
    )


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("8.6", "wrong result"),
        ("9.3", "wrong result"),
        ("10.3", "wrong result"),
        ("10.8", "wrong result"),
        ("10.9", None),
        ("11.1", None),
    ],
)
def test_scale_a_channel_is_taken_for_scale_a_group_before_10_9(version: str, expected: str | None) -> None:
    assert effect(group(21, 8), version, "group-normalization-layout") == expected


@pytest.mark.parametrize("version", ["8.6", "10.8", "10.9", "11.1"])
def test_scale_a_group_is_the_form_of_opset_18_and_read(version: str) -> None:
    assert effect(group(18, 2), version, "group-normalization-layout") is None


def test_the_layouts_are_one_where_a_group_is_a_channel() -> None:
    assert effect(group(21, 8, groups=8), "10.3", "group-normalization-layout") is None


def test_where_the_operator_is_unknown_only_that_is_said() -> None:
    assert effect(group(21, 8), "8.5", "group-normalization-layout") is None
    assert effect(group(21, 8), "8.5", "unsupported-operator") == "refused"


def instance(shape: Shape = (1, 8, 4, 4), computed: bool = False) -> onnx.ModelProto:
    inputs: dict[str, Shape] = {"x": shape, **({"scale": (8,)} if computed else {})}
    constants = {"bias": ones(8), **({} if computed else {"scale": ones(8)})}
    return model_of(node("InstanceNormalization", "x scale bias", "y"), inputs, {"y": (FLOAT, None)}, constants)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("8.0", "risky"), ("8.2", "risky"), ("8.6", "risky"), ("9.3", "risky"), ("10.0", None), ("10.3", None)],
)
def test_instance_normalization_is_a_plugin_before_10_0(version: str, expected: str | None) -> None:
    assert effect(instance(), version, "instance-normalization-plugin") == expected


@pytest.mark.parametrize(
    ("shape", "computed", "expected"),
    [
        ((1, 8, 4), False, "risky"),
        ((1, 8, 4, 4, 4), False, "risky"),
        ((1, 8), False, "refused"),
        ((1, 8, 2, 2, 2, 2), False, "refused"),
        ((1, 8, 4, 4), True, "refused"),
    ],
)
def test_the_plugin_has_conditions_of_its_own(shape: Shape, computed: bool, expected: str) -> None:
    assert effect(instance(shape, computed), "8.2", "instance-normalization-plugin") == expected
    assert effect(instance(shape, computed), "10.0", "instance-normalization-plugin") is None


@pytest.mark.parametrize(
    ("stash_type", "version", "expected"),
    [
        (TensorProto.FLOAT16, "8.6", "risky"),
        (TensorProto.FLOAT16, "11.1", "risky"),
        (TensorProto.FLOAT, "8.6", None),
        (None, "8.6", None),
        (TensorProto.FLOAT16, "8.2", None),
    ],
)
def test_statistics_are_fp32_whatever_stash_type_says(
    stash_type: int | None, version: str, expected: str | None
) -> None:
    attributes: dict[str, Any] = {} if stash_type is None else {"stash_type": stash_type}
    model = model_of(
        node("LayerNormalization", "x scale", "y", **attributes),
        {"x": (1, 16, 8)},
        {"y": (FLOAT, None)},
        {"scale": ones(8)},
        17,
    )
    assert effect(model, version, "layer-normalization-stash") == expected


def test_the_decomposed_form_is_quiet() -> None:
    nodes = [
        node("ReduceMean", "x", "mean", axes=[2, 3]),
        node("Sub", "x mean", "centred"),
        node("Mul", "centred centred", "square"),
        node("ReduceMean", "square", "variance", "ReduceMean_1", axes=[2, 3]),
        node("Add", "variance eps", "shifted"),
        node("Sqrt", "shifted", "deviation"),
        node("Div", "centred deviation", "y"),
    ]
    model = model_of(nodes, {"x": (1, 8, 4, 4)}, {"y": (FLOAT, None)}, {"eps": np.float32(1e-5)})
    assert found(model, half_planned=frozenset()) == []
