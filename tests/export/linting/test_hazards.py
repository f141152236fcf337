"""Holds the FP16 hazards that are found without running a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

from deploy_attn.engines.target import Target, load_target
from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph
from deploy_attn.export.linting.hazards import hazards
from deploy_attn.export.precision import plan_from_graph
from tests.export.linting.graphs import model_of, node, one

NANO = load_target("jetson-nano")
HALF = onnx.TensorProto.FLOAT16


def _hazards(
    model: onnx.ModelProto, half_planned: frozenset[str] | None = None, target: Target = NANO
) -> list[Finding]:
    return list(hazards(LintGraph(model, half_planned), target))


def _rules(model: onnx.ModelProto, half_planned: frozenset[str] | None = None) -> list[str]:
    return [finding.rule for finding in _hazards(model, half_planned)]


def _model(*nodes: onnx.NodeProto, constants: Mapping[str, Any] | None = None, opset: int = 13) -> onnx.ModelProto:
    inputs = {"x": (1, 4, 8, 8), "z": (1, 4, 8, 8)}
    return model_of(list(nodes), inputs, {nodes[-1].output[0]: (1, None)}, constants, opset)


MAP = (1, 4, 8, 8)
ONES = [1.0] * 4


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        pytest.param(_model(node("Mul", "x x", "y")), "half-square", id="x times x"),
        pytest.param(_model(node("Mul", "x z", "y")), None, id="x times z"),
        pytest.param(_model(node("Pow", "x e", "y"), constants={"e": 2.0}), "half-square", id="power 2"),
        pytest.param(_model(node("Pow", "x e", "y"), constants={"e": 0.5}), None, id="power 0.5"),
        pytest.param(one("ReduceSumSquare", MAP, axes=[1]), "half-norm", id="ReduceSumSquare"),
        pytest.param(one("ReduceL2", MAP, axes=[1]), "half-norm", id="ReduceL2"),
        pytest.param(one("LpNormalization", MAP, axis=1), "half-norm", id="LpNormalization"),
        pytest.param(one("InstanceNormalization", MAP, {"s": ONES, "b": ONES}), "half-norm", id="InstanceNorm"),
        pytest.param(one("LayerNormalization", MAP, {"s": [1.0] * 8}, 17), "half-norm", id="LayerNorm"),
        pytest.param(one("GlobalAveragePool", MAP), "half-sum", id="GlobalAveragePool"),
        pytest.param(one("GlobalMaxPool", MAP), None, id="GlobalMaxPool"),
        pytest.param(one("ReduceMean", MAP, axes=[2, 3]), "half-sum", id="mean over the map"),
        pytest.param(one("ReduceMean", MAP, axes=[1]), None, id="mean over channels"),
        pytest.param(one("ReduceMean", (1, 4, "h", "w"), axes=[2, 3]), "half-sum", id="mean over an open map"),
        pytest.param(one("Exp", MAP), "half-exponential", id="Exp"),
        pytest.param(one("Softmax", MAP), "half-exponential", id="Softmax"),
        pytest.param(one("Sigmoid", MAP), None, id="Sigmoid"),
        pytest.param(_model(node("Add", "x e", "y"), constants={"e": 1e-8}), "half-small-constant", id="eps of 1e-8"),
        pytest.param(_model(node("Add", "x e", "y"), constants={"e": 1e-4}), None, id="eps of 1e-4"),
        pytest.param(_model(node("Add", "x m", "y"), constants={"m": -1e9}), "half-overflow", id="mask of -1e9"),
        pytest.param(_model(node("Add", "x m", "y"), constants={"m": -1e4}), None, id="mask of -1e4"),
        pytest.param(_model(node("Add", "x m", "y"), constants={"m": -np.inf}), "half-overflow", id="mask of -inf"),
        pytest.param(_model(node("Mul", "x w", "y"), constants={"w": [1.0] * 7 + [7e4]}), "half-overflow", id="weight"),
        pytest.param(_model(node("Clip", "x - m", "y"), constants={"m": 3.4e38}), None, id="a bound beyond FP16"),
        pytest.param(_model(node("Max", "x m", "y"), constants={"m": -1e9}), None, id="Max with -1e9"),
    ],
)
def test_each_hazard_of_a_plain_graph(model: onnx.ModelProto, rule: str | None) -> None:
    caught = _hazards(model)
    assert [finding.rule for finding in caught] == ([rule] if rule else [])
    assert all(finding.effect == "risky" and finding.why and finding.remedy for finding in caught)


@pytest.mark.parametrize(("scaled", "caught"), [(False, True), (True, False)])
def test_softmax_logits_without_a_scale(scaled: bool, caught: bool) -> None:
    scale = [node("Mul", "x k", "q")] if scaled else [node("Identity", "x", "q")]
    model = _model(*scale, node("MatMul", "q z", "t"), node("Softmax", "t", "y"), constants={"k": 0.125})
    assert ("half-logits" in _rules(model)) == caught


def test_a_variance_that_cancels() -> None:
    mean: dict[str, Any] = {"axes": [2, 3]}
    cancelling = _model(
        node("Mul", "x x", "s"),
        node("ReduceMean", "s", "a", "mean of squares", **mean),
        node("ReduceMean", "x", "b", "mean", **mean),
        node("Mul", "b b", "c", "square of the mean"),
        node("Sub", "a c", "y"),
    )
    assert [finding.rule for finding in _hazards(cancelling) if finding.node == "Sub"] == ["half-variance"]
    two_passes = _model(node("ReduceMean", "x", "b", **mean), node("Sub", "x b", "y"))
    assert "half-variance" not in _rules(two_passes)


def test_what_grows_is_followed_to_where_it_is_bounded() -> None:
    nodes = [
        node("Mul", "x x", "s"),
        node("Relu", "s", "r"),
        node("Sigmoid", "r", "g"),
        node("Relu", "g", "y", "after"),
    ]
    caught = {finding.node: finding.rule for finding in _hazards(_model(*nodes))}
    assert caught == {"Mul": "half-square", "Relu": "half-growth", "Sigmoid": "half-growth"}


def test_a_batch_normalization_of_constants_is_folded_and_no_hazard() -> None:
    assert _rules(one("BatchNormalization", MAP, dict.fromkeys("sbmv", ONES))) == []
    taken = model_of(node("BatchNormalization", "x s s s s", "y"), {"x": MAP, "s": (4,)}, {"y": (1, None)})
    assert _rules(taken) == ["half-norm"]


def test_only_what_the_plan_runs_in_fp16_is_judged() -> None:
    model = _model(node("Mul", "x x", "s", "first"), node("Mul", "z z", "y", "second"))
    assert [finding.node for finding in _hazards(model, frozenset({"second"}))] == ["second"]
    assert _hazards(model, frozenset()) == []


def test_only_what_a_typed_graph_makes_in_fp16_is_judged() -> None:
    nodes = [
        node("Mul", "x x", "s", "full"),
        node("Cast", "z", "h", to=HALF),
        node("Mul", "h h", "t", "half"),
        node("Cast", "t", "y", "back", to=1),
    ]
    assert [finding.node for finding in _hazards(_model(*nodes))] == ["half"]


@pytest.mark.parametrize(
    ("eps", "user", "caught"), [(1e-8, "Sqrt", True), (1e-8, "Relu", False), (1e-3, "Sqrt", False)]
)
def test_an_eps_that_became_zero_in_a_typed_graph(eps: float, user: str, caught: bool) -> None:
    model = model_of(
        [node("Add", "x e", "t"), node(user, "t", "y")],
        {"x": (HALF, (2,))},
        {"y": (HALF, None)},
        {"e": np.array(eps, np.float16)},
    )
    assert ("half-lost-eps" in _rules(model)) == caught


def test_a_typed_graph_whose_mask_is_infinite() -> None:
    model = model_of(
        node("Add", "x m", "y"), {"x": (HALF, (2,))}, {"y": (HALF, None)}, {"m": np.array(-np.inf, np.float16)}
    )
    assert "NaN" in next(finding.why for finding in _hazards(model) if finding.rule == "half-overflow")


def test_weights_out_of_range_are_counted() -> None:
    model = _model(node("Mul", "x w", "y"), constants={"w": [1e5, -2e5, 1.0, 1.0, 1.0, 1.0, 1.0, 3e5]})
    assert "3 values" in _hazards(model)[0].why


def test_an_engine_that_stays_in_fp32_has_no_hazards_of_a_plain_graph() -> None:
    model = one("Exp", MAP)
    cpu = load_target("onnxruntime-cpu")
    assert _hazards(model, target=cpu) == []
    assert [finding.rule for finding in _hazards(model, frozenset({"Exp"}), cpu)] == ["half-exponential"]


@pytest.mark.parametrize("op_type", ["Exp", "Softmax", "GlobalAveragePool", "Relu"])
def test_the_precision_plan_judges_by_the_same_meaning(op_type: str) -> None:
    model = one(op_type, MAP)
    plan = plan_from_graph(model, {"x": 1.0, "y": 1.0})
    reasons = [f"in FP16: {item.reason}" for item in plan.nodes if item.precision == "fp32"]
    assert [finding.why for finding in _hazards(model)] == reasons
    assert _hazards(model, plan.half_nodes()) == []


def test_nodes_without_names_and_of_other_domains_are_no_trouble() -> None:
    nodes = [node("Mul", "x x", "s", ""), node("Exp", "s", "t", "", domain="com.example"), node("Relu", "s", "y", "")]
    model = model_of(nodes, {"x": (2,)}, {"y": (1, None)}, domains={"com.example": 1})
    assert [finding.node for finding in _hazards(model)] == ["s", "y"]


def test_branches_hold_hazards_too() -> None:
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("s", "t")]
    square = onnx.helper.make_graph([node("Mul", "x x", "s", "square")], "then", [], values[:1])
    mask = onnx.numpy_helper.from_array(np.array(-1e9, np.float32), "low")
    masked = onnx.helper.make_graph([node("Add", "x low", "t", "mask")], "else", [], values[1:], [mask])
    choice = onnx.helper.make_node("If", ["c"], ["y"], name="choice", then_branch=square, else_branch=masked)
    model = model_of(choice, {"x": MAP, "c": (onnx.TensorProto.BOOL, ())}, {"y": MAP})
    assert {(finding.rule, finding.node) for finding in _hazards(model)} == {
        ("half-square", "square"),
        ("half-overflow", "mask"),
    }
