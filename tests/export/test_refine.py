"""Refinement: what rounding moves is kept in FP32, what it does not move stays in FP16."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import PrecisionPlan, plain_half_plan, plan_from_graph
from deploy_attn.export.ranges import tensor_ranges
from deploy_attn.export.reference import reference_cases
from deploy_attn.export.refine import MODULE, Aim, refined_plan, rounded_comparisons
from deploy_attn.jetson.artifact import Case


class _Gated(nn.Module):
    """A gate whose argument is far from zero and nearly cancels: rounding decides it."""

    def __init__(self, size: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.size = size
        self.before = nn.Conv2d(8, 8, 1)
        self.argument = nn.Conv2d(8, 8, 1, bias=False)
        nn.init.constant_(self.before.get_parameter("bias"), 50.0)
        with torch.no_grad():
            self.argument.weight -= self.argument.weight.mean(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.argument(torch.relu(self.before(x))) * self.size)
        return x * gate


def _problem(size: float) -> tuple[onnx.ModelProto, list[Case], PrecisionPlan]:
    module = _Gated(size).eval()
    x = np.random.RandomState(0).standard_normal((1, 8, 12, 12)).astype(np.float32)
    cases = reference_cases(module, {"normal": x})
    with torch.inference_mode():
        model = onnx_from_module(module, torch.from_numpy(x), GraphRequest(17, 8))
    return model, cases, plan_from_graph(model, tensor_ranges(model, [case.inputs for case in cases]))


def _error(model: onnx.ModelProto, plan: PrecisionPlan, cases: list[Case]) -> float:
    return rounded_comparisons(model, plan, cases)["normal"]["output"].rms_relative


def test_a_plan_that_holds_is_returned_as_it_is() -> None:
    model, cases, plan = _problem(0.01)
    assert _error(model, plan, cases) <= MODULE.rounded.rms_relative
    assert refined_plan(model, plan, cases) is plan


def test_what_decides_a_saturating_gate_goes_back_to_fp32_and_says_why() -> None:
    model, cases, plan = _problem(50.0)
    assert _error(model, plan, cases) > MODULE.rounded.rms_relative
    refined = refined_plan(model, plan, cases)
    assert _error(model, refined, cases) <= MODULE.rounded.rms_relative
    reasons = {node.op_type: node.reason for node in refined.nodes if node.precision == "fp32"}
    assert "whose argument reaches" in reasons["Conv"]
    assert {node.node for node in refined.nodes} == {node.node for node in plan.nodes}
    assert any(node.precision == "fp16" for node in refined.nodes if node.op_type == "Mul")


def test_a_step_that_does_not_help_is_not_taken() -> None:
    model, cases, plan = _problem(50.0)
    wrong = [Case(case.name, case.inputs, {"output": case.outputs["output"] + 1}) for case in cases]
    assert refined_plan(model, plan, wrong) is plan


def test_a_graph_that_overflows_whatever_is_widened_keeps_its_plan() -> None:
    model, cases, plan = _problem(50.0)
    overflowing = [Case(case.name, {"input": case.inputs["input"] * np.float32(1e6)}, case.outputs) for case in cases]
    assert refined_plan(model, plan, overflowing) is plan


def test_plain_half_puts_every_node_that_can_be_in_fp16() -> None:
    model, cases, plan = _problem(50.0)
    plain = plain_half_plan(model)
    assert {node.precision for node in plain.nodes} == {"fp16"}
    assert _error(model, plain, cases) > MODULE.rounded.rms_relative
    assert plan.count("fp16") == len(plain.nodes)


def test_what_a_network_rounds_early_goes_back_to_fp32_until_it_holds() -> None:
    torch.manual_seed(1)
    layers = [layer for _ in range(16) for layer in (nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Hardtanh(-2, 2))]
    x = np.random.RandomState(0).standard_normal((1, 8, 12, 12)).astype(np.float32)
    network = nn.Sequential(*layers).eval()
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0, 0.2)  # each layer amplifies what the one before it rounded
    cases = reference_cases(network, {"normal": x})
    with torch.inference_mode():
        model = onnx_from_module(network, torch.from_numpy(x), GraphRequest(17, 8))
    plan = plan_from_graph(model, tensor_ranges(model, [{"input": x}]))
    error = _error(model, plan, cases)
    generous = MODULE.as_it_runs._replace(rms_relative=1.0, worst_relative=100.0)
    aim = Aim(generous, generous._replace(rms_relative=0.7 * error), 1.0, (8, 4, 2))
    assert refined_plan(model, plan, cases, aim._replace(leading=())) == plan
    refined = refined_plan(model, plan, cases, aim)
    assert _error(model, refined, cases) <= 0.7 * error
    moved = [new.node for old, new in zip(plan.nodes, refined.nodes) if old != new]
    assert moved == [node.node for node in plan.nodes[: len(moved)]]
    assert 0 < len(moved) < len(plan.nodes)
    assert "rounded there, it moved the output most" in refined.nodes[0].reason
