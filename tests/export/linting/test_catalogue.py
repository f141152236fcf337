"""Lint is quiet on what this project itself exports for a target: every module, form and precision."""

from __future__ import annotations

from functools import cache

import onnx
import pytest

from deploy_attn import available
from deploy_attn.engines.target import Target, load_target, target_names
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import PrecisionPlan, plan_from_graph
from deploy_attn.export.ranges import tensor_ranges
from deploy_attn.export.typed import typed_from_plan
from tests.deploy_attn.catalogue_cases import small
from tests.export.linting.graphs import findings

SHAPE = (1, 32, 8, 6)
FIXED_SIZE = ("fca", "mobilevit")
# One target for each version that a parser, or the absence of one, is told apart by.
TARGETS = tuple({(t.tensorrt, t.opset, t.family): t.name for t in map(load_target, reversed(target_names()))}.values())
NATIVE_HALF = (8, 4)


@cache
def _exported(name: str, axes: str, family: str, opset: int, ir_version: int) -> tuple[onnx.ModelProto, PrecisionPlan]:
    """A module's graph as an export for such a target writes it, and its plan."""
    import torch

    open_size = axes == "size" and name not in FIXED_SIZE
    torch.manual_seed(0)
    form = small(name).export_form(SHAPE, family, open_size).float().eval()
    x = torch.randn(SHAPE)
    with torch.inference_mode():
        model = onnx_from_module(form, x, GraphRequest(opset, ir_version, axes != "static", open_size))
    return model, plan_from_graph(model, tensor_ranges(model, [{"input": x.numpy()}]))


def _of(name: str, axes: str, target: Target) -> tuple[onnx.ModelProto, PrecisionPlan]:
    return _exported(name, axes, target.family, target.opset, target.ir_version)


def _rules(model: onnx.ModelProto, target: Target, half_planned: frozenset[str] | None) -> list[str]:
    """The names of the rules that find something."""
    return [finding.rule for finding in findings(model, target, half_planned)]


@pytest.mark.parametrize("axes", ["static", "batch", "size"])
@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize("target_name", TARGETS)
def test_what_the_catalogue_exports_has_no_finding(target_name: str, name: str, axes: str) -> None:
    target = load_target(target_name)
    model, plan = _of(name, axes, target)
    assert _rules(model, target, frozenset()) == []
    assert _rules(model, target, plan.half_nodes()) == []


@pytest.mark.parametrize("axes", ["static", "size"])
@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize("target_name", TARGETS)
def test_its_typed_graph_has_none_where_the_plan_is_beside_it_or_fp16_weights_are_read(
    target_name: str, name: str, axes: str
) -> None:
    target = load_target(target_name)
    model, plan = _of(name, axes, target)
    typed = typed_from_plan(model, plan)
    assert _rules(typed, target, plan.half_nodes()) == []
    native = target.tensorrt is None or target.tensorrt >= NATIVE_HALF
    assert _rules(typed, target, None) == ([] if native else ["typed-half-graph"])


def test_a_plain_graph_without_a_plan_shows_why_it_needs_one() -> None:
    model, _ = _exported("simam", "static", "gpu", 13, 7)
    assert {finding.effect for finding in findings(model, "jetson-nano")} == {"risky"}
