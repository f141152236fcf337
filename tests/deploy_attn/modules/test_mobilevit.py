"""MobileViT: what attends to what, the maps that fit, and where layers are merged."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from deploy_attn import BadRequest, create
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import plan_from_graph
from deploy_attn.export.ranges import tensor_ranges

SMALL = {"channels": 6, "dim": 8, "patch_size": 2}


@pytest.mark.parametrize("exported", [False, True], ids=["reference", "form"])
def test_a_place_reaches_only_the_same_place_of_other_patches(exported: bool) -> None:
    reference = create("mobilevit", **SMALL, kernel_size=1).double().eval()
    network: nn.Module = reference.export_form((1, 6, 4, 6)) if exported else reference
    x = torch.randn(1, 6, 4, 6, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 2, 3] += 1
    with torch.inference_mode():
        moved = (network(changed) - network(x)).abs().amax((0, 1)) > 1e-12
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[0::2, 1::2] = True
    assert torch.equal(moved, expected)


@pytest.mark.parametrize(("height", "width", "words"), [(6, 7, "map_width=7"), (9, 8, "map_height=9")])
def test_a_map_that_is_no_multiple_of_the_patch_is_refused(height: int, width: int, words: str) -> None:
    reference = create("mobilevit", **SMALL).eval()
    with pytest.raises(BadRequest, match=words):
        reference(torch.zeros(1, 6, height, width))
    with pytest.raises(BadRequest, match=words):
        reference.export_form((1, 6, height, width))


def test_an_open_size_is_refused() -> None:
    with pytest.raises(BadRequest, match="fixed height and width"):
        create("mobilevit", **SMALL).export_form((1, 6, 4, 4), dynamic_size=True)


@pytest.mark.parametrize(("channels", "convolutions"), [(8, 1), (7, 2)])
def test_the_first_convolutions_become_one_where_that_is_no_more_work(channels: int, convolutions: int) -> None:
    # From 8 channels to 9: 648 multiplications a place either way; from 7, 567 instead of 504.
    reference = create("mobilevit", channels=channels, dim=9, patch_size=2).double().eval()
    form = reference.export_form((1, channels, 4, 4)).eval()
    embedding = form.get_submodule("embed")
    assert sum(isinstance(layer, nn.Conv2d) for layer in embedding.modules()) == convolutions
    x = torch.randn(2, channels, 4, 4, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(form(x), reference(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_attention_stays_in_fp16_and_the_norms_do_not(engine: str) -> None:
    form = create("mobilevit", **SMALL).export_form((1, 6, 4, 4), engine).eval()
    x = torch.randn(1, 6, 4, 4)
    with torch.inference_mode():
        graph = onnx_from_module(form, x, GraphRequest(13, 7))
    plan = plan_from_graph(graph, tensor_ranges(graph, [{"input": x.numpy()}]))
    precisions = {kind: {node.precision for node in plan.nodes if node.op_type == kind} for kind in ("MatMul", "Sqrt")}
    assert precisions == {"MatMul": {"fp16"}, "Sqrt": {"fp32"}}


@pytest.mark.parametrize(("opset", "ir_version"), [(13, 7), (17, 8)])
def test_onnxruntime_makes_one_node_of_each_norm_on_a_cpu(tmp_path: Path, opset: int, ir_version: int) -> None:
    form = create("mobilevit", **SMALL).export_form((1, 6, 4, 4), "cpu").eval()
    with torch.inference_mode():
        graph = onnx_from_module(form, torch.zeros(1, 6, 4, 4), GraphRequest(opset, ir_version))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert kinds.count("LayerNormalization") == 6
    assert not {"Sqrt", "Pow"} & set(kinds)


def test_a_map_is_copied_once_each_way() -> None:
    form = create("mobilevit", **SMALL).export_form((1, 6, 4, 4), "gpu").eval()
    with torch.inference_mode():
        nodes = onnx_from_module(form, torch.zeros(1, 6, 4, 4), GraphRequest(13, 7)).graph.node
    orders = [list(attribute.ints) for node in nodes for attribute in node.attribute if node.op_type == "Transpose"]
    assert sum(len(order) == 6 for order in orders) == 2
    assert not {"Pow", "Slice", "LayerNormalization"} & {node.op_type for node in nodes}
