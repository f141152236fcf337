"""Opset and IR version against what each TensorRT documents."""

from __future__ import annotations

import pytest
from onnx import helper

from deploy_attn.engines.target import Target, load_target, target_names
from tests.export.linting.graphs import findings, found, model_of, node, one, tensorrt_target

SHAPE = (1, 4)


def rules(opset: int, ir_version: int, target: str | Target) -> list[str]:
    return found(one("Relu", SHAPE, opset=opset, ir_version=ir_version), target)


@pytest.mark.parametrize(
    ("version", "opset"),
    [("8.0", 13), ("8.2", 13), ("8.4", 17), ("8.6", 17), ("9.3", 19), ("10.3", 20), ("10.7", 22), ("10.13", 23)],
)
def test_an_opset_above_what_a_version_documents_is_risky(version: str, opset: int) -> None:
    target = tensorrt_target(version)
    assert "opset-above" not in rules(opset, 4, target)
    assert rules(opset + 1, 4, target) == ["opset-above"]
    assert rules(24, 4, tensorrt_target("11.1")) == []


@pytest.mark.parametrize(
    ("version", "ir_version"), [("8.2", 7), ("8.5", 8), ("9.3", 9), ("10.3", 10), ("10.13", 11), ("11.1", 13)]
)
def test_an_ir_version_above_what_a_version_was_built_with_is_risky(version: str, ir_version: int) -> None:
    target = tensorrt_target(version)
    assert rules(13, ir_version, target) == []
    assert rules(13, ir_version + 1, target) == ["ir-above"]


def test_both_are_no_errors_say_what_was_found_and_what_to_do() -> None:
    above = findings(one("Relu", SHAPE, opset=18, ir_version=9), "jetson-nano")
    assert [item.effect for item in above] == ["risky", "risky"]
    assert "to 13" in above[0].why
    assert "this is 18" in above[0].why
    assert "opset 13" in above[0].remedy
    assert "ir_version = 7" in above[1].remedy


@pytest.mark.parametrize(
    ("opset", "expected"),
    [(-1, ["opset-below"]), (0, ["opset-below"]), (5, ["opset-below"]), (6, ["opset-below"]), (7, [])],
)
def test_an_opset_below_7_is_risky(opset: int, expected: list[str]) -> None:
    assert rules(opset, 3, "jetson-nano") == expected


@pytest.mark.parametrize("name", target_names())
def test_what_a_profile_exports_at_is_never_above(name: str) -> None:
    target = load_target(name)
    assert rules(target.opset, target.ir_version, target) == []


def test_onnxruntime_is_held_to_its_profile() -> None:
    target = load_target("onnxruntime-cpu")
    assert rules(target.opset + 1, target.ir_version + 1, target) == ["opset-above", "ir-above"]


def test_a_model_of_another_domain_alone_has_no_opset_to_judge() -> None:
    model = model_of(node("Scaler", "x", "y", domain="ai.onnx.ml"), {"x": SHAPE}, {"y": SHAPE})
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    assert found(model, "jetson-nano") == ["foreign-operator"]
