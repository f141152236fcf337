"""Holds the promise of --fp16 for the whole catalogue: finite and near, in both brackets, on severe activations."""

from __future__ import annotations

import numpy as np
import pytest

from deploy_attn import available
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.export.inputs import noise_inputs
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import plain_half_plan
from deploy_attn.export.reference import reference_cases
from deploy_attn.export.refine import MODULE, plan_for, rounded_comparisons
from deploy_attn.export.typed import typed_from_plan
from deploy_attn.jetson.metrics import compare
from deploy_attn.modules.disturb import disturb_constants

SHAPE = (1, 64, 56, 56)
SMALLER = (1, 64, 28, 28)  # for those whose cost grows with the square of the positions; their rounding does not
QUADRATIC = ("mhsa", "mobilevit", "non_local", "self_attention")
TARGET = MODULE.rounded.rms_relative
# Those whose plain half() is not finite, or off by more than the plan may be, on one of the inputs.
LOST_IN_PLAIN_HALF = ("encnet", "gct", "mhsa", "non_local", "s2", "self_attention", "shuffle", "simam", "srm")


@pytest.mark.parametrize("name", available())
def test_the_planned_graph_survives_severe_activations(name: str) -> None:
    import torch

    import deploy_attn

    shape = SMALLER if name in QUADRATIC else SHAPE
    torch.manual_seed(0)
    options = {"dim": 96} if name == "mobilevit" else {}
    reference = deploy_attn.create(name, channels=shape[1], **options).eval()
    disturb_constants(reference)
    inputs = noise_inputs(shape, 0, severe=True)
    cases = reference_cases(reference, inputs)
    form = reference.double().export_form(shape, "gpu").float().eval()
    with torch.inference_mode():
        model = onnx_from_module(form, torch.from_numpy(inputs["normal"]), GraphRequest(13, 7))
    plan = plan_for(model, cases)
    assert plan.count("fp16") > 0
    pessimistic = rounded_comparisons(model, plan, cases)
    with OnnxRuntimeRunner(typed_from_plan(model, plan).SerializeToString()) as run:
        optimistic = {case.name: compare(run.infer(case.inputs)["output"], case.outputs["output"]) for case in cases}
    for case in cases:
        for found in (optimistic[case.name], pessimistic[case.name]["output"]):
            assert found.non_finite == 0
            assert found.rms_relative <= TARGET
    plain = rounded_comparisons(model, plain_half_plan(model), cases)
    lost = any(outputs["output"].non_finite or outputs["output"].rms_relative > TARGET for outputs in plain.values())
    assert lost == (name in LOST_IN_PLAIN_HALF)


@pytest.mark.parametrize("shape", [SHAPE, SMALLER])
def test_noise_that_is_severe_leaves_the_range_of_fp16(shape: tuple[int, int, int, int]) -> None:
    inputs = noise_inputs(shape, 0, severe=True)
    squares = {name: float((x.astype(np.float64) ** 2).sum((2, 3)).max()) for name, x in inputs.items()}
    assert squares["normal"] < 65504 < squares["large"]
    assert squares["far_mean"] > 65504
