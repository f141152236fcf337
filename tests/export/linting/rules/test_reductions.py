"""Reductions: axes that the parser reads, those that it does not, and those for which it does not matter."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto

from tests.export.linting.graphs import FLOAT, Shape, findings, found, model_of, node, one, tensorrt_target

MAP: Shape = (2, 8, 4, 4)
BY_ATTRIBUTE = ["ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"]


def by_input(op_type: str, axes: list[int], shape: Shape = MAP, opset: int = 18, **attributes: Any) -> onnx.ModelProto:
    return one(op_type, shape, {"axes": axes}, opset, **attributes)


def effect(model: onnx.ModelProto, version: str, rule: str = "reduce-axes-input") -> str | None:
    effects = [finding.effect for finding in findings(model, tensorrt_target(version)) if finding.rule == rule]
    assert len(effects) <= 1
    return effects[0] if effects else None


@pytest.mark.parametrize("op_type", BY_ATTRIBUTE)
@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("8.0", "wrong result"),
        ("8.2", "wrong result"),
        ("8.4", "wrong result"),
        ("8.5", "wrong result"),
        ("8.6", "wrong result"),
        ("9.3", "wrong result"),
        ("10.0", None),
        ("10.3", None),
        ("11.1", None),
    ],
)
def test_axes_as_an_input_are_ignored_before_10_0(op_type: str, version: str, expected: str | None) -> None:
    assert effect(by_input(op_type, [2, 3]), version) == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("8.2", "wrong result"),
        ("9.3", "wrong result"),
        ("10.0", "wrong result"),
        ("10.6", "wrong result"),
        ("10.7", "risky"),
        ("10.14", "risky"),
        ("10.15", None),
        ("11.0", None),
    ],
)
def test_reduce_log_sum_exp_loses_its_axes_longer(version: str, expected: str | None) -> None:
    assert effect(by_input("ReduceLogSumExp", [1]), version) == expected


@pytest.mark.parametrize(("version", "expected"), [("8.2", "risky"), ("9.3", "risky"), ("10.0", None)])
def test_reduce_log_sum_reads_them_as_reduce_sum_does(version: str, expected: str | None) -> None:
    assert effect(by_input("ReduceLogSum", [1]), version) == expected


@pytest.mark.parametrize("version", ["8.0", "8.2", "8.6", "10.3", "11.1"])
@pytest.mark.parametrize("opset", [13, 18])
def test_reduce_sum_reads_axes_as_an_input_in_every_version(version: str, opset: int) -> None:
    assert effect(by_input("ReduceSum", [2, 3], opset=opset), version) is None


@pytest.mark.parametrize("op_type", [*BY_ATTRIBUTE, "ReduceLogSum", "ReduceLogSumExp"])
def test_axes_as_an_attribute_are_read_everywhere(op_type: str) -> None:
    assert effect(one(op_type, MAP, axes=[2, 3]), "8.0") is None


@pytest.mark.parametrize(
    ("axes", "shape", "attributes", "same"),
    [
        pytest.param([0, 1, 2, 3], MAP, {}, True, id="every axis"),
        pytest.param([-1, -4, 2, 1], MAP, {}, True, id="every axis in another order"),
        pytest.param([1, 2, 3], MAP, {}, False, id="all but the batch"),
        pytest.param([1, 2, 3], (1, 8, 4, 4), {}, True, id="all but a batch of one that is kept"),
        pytest.param([1, 2, 3], (1, 8, 4, 4), {"keepdims": 0}, False, id="all but a batch of one that is dropped"),
        pytest.param([1, 2, 3], ("n", 8, 4, 4), {}, False, id="all but an open batch"),
        pytest.param([], MAP, {}, True, id="no axes, which means every axis"),
        pytest.param([], MAP, {"noop_with_empty_axes": 1}, False, id="no axes, which means no reduction"),
    ],
)
def test_ignored_axes_matter_only_where_another_result_comes_out(
    axes: list[int], shape: Shape, attributes: dict[str, Any], same: bool
) -> None:
    import numpy as np

    model = one("ReduceMean", shape, {"axes": np.asarray(axes, np.int64)}, 18, **attributes)
    rules = {"reduce-axes-input", "reduce-noop"} & set(found(model))
    assert bool(rules) is not same


def test_axes_that_are_empty_are_ignored_too() -> None:
    import numpy as np

    model = one("ReduceMean", MAP, {"axes": np.zeros(0, np.int64)}, 18, noop_with_empty_axes=1)
    assert effect(model, "9.3") == "wrong result"


@pytest.mark.parametrize("rule", ["reduce-axes-input", "reduce-noop"])
def test_an_attribute_beside_the_input_is_what_is_read(rule: str) -> None:
    import numpy as np

    attributes: dict[str, Any] = {"axes": [1], "noop_with_empty_axes": 1}
    model = one("ReduceMean", MAP, {"axes": np.zeros(0, np.int64)}, 18, **attributes)
    assert effect(model, "8.2", rule) is None


def test_computed_axes_are_ignored_too() -> None:
    model = model_of(
        node("ReduceMax", "x axes", "y"),
        {"x": MAP, "axes": (TensorProto.INT64, (1,))},
        {"y": (FLOAT, None)},
        opset=18,
    )
    assert effect(model, "8.2") == "wrong result"


@pytest.mark.parametrize(("version", "expected"), [("8.2", "wrong result"), ("9.3", "wrong result"), ("10.0", None)])
def test_a_reduction_that_should_not_happen_happens_over_every_axis(version: str, expected: str | None) -> None:
    model = one("ReduceSum", MAP, noop_with_empty_axes=1)
    assert effect(model, version, "reduce-noop") == expected


@pytest.mark.parametrize("attributes", [{"noop_with_empty_axes": 0}, {}])
def test_a_reduction_without_axes_is_one_over_every_axis(attributes: dict[str, Any]) -> None:
    assert effect(one("ReduceSum", MAP, **attributes), "8.2", "reduce-noop") is None


def test_axes_win_over_noop() -> None:
    assert effect(by_input("ReduceSum", [1], opset=13, noop_with_empty_axes=1), "8.2", "reduce-noop") is None


@pytest.mark.parametrize(("version", "expected"), [("8.2", "slow"), ("10.7", "slow"), ("10.8", None)])
def test_a_running_sum_is_a_slow_loop_before_10_8(version: str, expected: str | None) -> None:
    assert effect(one("CumSum", MAP, {"axis": 1}), version, "cumsum-loop") == expected


def test_a_finding_says_what_is_computed_instead_and_where() -> None:
    (finding,) = [item for item in findings(by_input("ReduceMean", [1])) if item.rule == "reduce-axes-input"]
    assert (finding.node, finding.op_type, finding.is_error) == ("ReduceMean", "ReduceMean", True)
    assert "reduces over every axis" in finding.why
    assert "attribute" in finding.remedy
