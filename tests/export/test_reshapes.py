"""Run-time reshape targets: frozen where they are known, left alone where they are not, equal either way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.reshapes import freeze_reshapes

OPEN = GraphRequest(13, 7, dynamic_batch=True, dynamic_size=True)


class _Does(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def _graph(function: Callable[[Tensor], Tensor], request: GraphRequest = OPEN) -> tuple[onnx.ModelProto, nn.Module]:
    module = _Does(function).eval()
    with torch.inference_mode():
        return onnx_from_module(module, torch.randn(2, 4, 5, 3), request), module


def _targets(model: onnx.ModelProto) -> list[list[int] | None]:
    """The target of each Reshape, None where it is computed at run time."""
    known = {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in model.graph.initializer}
    return [known.get(node.input[1]) for node in model.graph.node if node.op_type == "Reshape"]


def _assert_equal(model: onnx.ModelProto, module: nn.Module, *shapes: tuple[int, ...]) -> None:
    for shape in shapes:
        x = torch.randn(*shape)
        with torch.inference_mode(), OnnxRuntimeRunner(model.SerializeToString()) as run:
            np.testing.assert_allclose(run.infer({"input": x.numpy()})["output"], module(x).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("function", "target"),
    [
        (lambda x: x.flatten(2), [0, 6, -1]),
        (lambda x: x.flatten(1), None),  # a Flatten, no Reshape
        (lambda x: x.reshape(x.shape[0], 2, 3, -1), [0, 2, 3, -1]),
        (lambda x: x.view(x.size(0), x.size(1), -1), [0, 6, -1]),
        (lambda x: x.view(x.size(0), -1), [0, -1]),
        (lambda x: x.mean((2, 3)).reshape(x.shape[0], 1, 6, 1), [0, 1, 6, 1]),
        (lambda x: x.mean((2, 3)).view(x.shape[0], x.shape[1], 1, 1), [0, 6, 1, 1]),
        (lambda x: x.reshape(x.shape[0] * 2, 3, x.shape[2], x.shape[3]), [-1, 3, 0, 0]),
    ],
    ids=["flatten", "flatten-all", "heads", "view", "rest", "vector", "unsqueeze", "groups"],
)
def test_a_target_that_is_known_beforehand_becomes_a_constant(
    function: Callable[[Tensor], Tensor], target: list[int] | None
) -> None:
    model, module = _graph(function)
    assert _targets(model) == ([] if target is None else [target])
    assert not {"Shape", "Gather", "Concat", "Unsqueeze"} & {node.op_type for node in model.graph.node}
    _assert_equal(model, module, (1, 4, 5, 3), (3, 4, 2, 7))


def test_a_target_with_two_unknown_extents_is_left_to_the_run() -> None:
    model, module = _graph(lambda x: x.flatten(2).mean(1, keepdim=True).reshape(x.shape[0], 1, x.shape[2], x.shape[3]))
    assert None in _targets(model)
    _assert_equal(model, module, (1, 4, 5, 3), (3, 4, 2, 7))


def test_extents_that_change_their_place_are_not_kept_by_0() -> None:
    model, module = _graph(lambda x: x.reshape(x.shape[0], x.shape[2], -1))
    _assert_equal(model, module, (1, 4, 5, 3), (3, 4, 6, 1))
    model, module = _graph(lambda x: x.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))
    _assert_equal(model, module, (1, 4, 5, 3), (3, 4, 6, 1))


@pytest.mark.parametrize("pool", [functional.max_pool2d, functional.avg_pool2d], ids=["max", "average"])
def test_extents_that_shape_inference_gets_wrong_are_not_believed(pool: Callable[..., Tensor]) -> None:
    """Behind ceil_mode it counts a window that would start in the padding."""

    def shuffled(x: Tensor) -> Tensor:
        pooled = pool(x, 2, 3, 1, ceil_mode=True)
        return pooled.reshape(pooled.shape[0], pooled.shape[3], -1).softmax(2).amax(1)

    module = _Does(shuffled).eval()
    with torch.inference_mode():
        model = onnx_from_module(module, torch.randn(2, 4, 6, 5), GraphRequest(13, 7, dynamic_batch=True))
    _assert_equal(model, module, (2, 4, 6, 5), (3, 4, 6, 5))


class _Grouped(nn.Module):
    """Its first output has two rows for each of the batch, though an exporter calls them the batch."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        groups = x.reshape(x.shape[0] * 2, 2, x.shape[2], x.shape[3]) * 2
        return groups, groups.reshape(x.shape[0], -1).softmax(1)


def test_an_output_that_has_more_rows_than_the_batch_does_not_mislead() -> None:
    with torch.inference_mode():
        model = onnx_from_module(_Grouped(), torch.randn(2, 4, 5, 3), GraphRequest(13, 7, dynamic_batch=True))
    assert [0, -1] not in _targets(model)
    assert [2, -1] not in _targets(model)


@pytest.mark.parametrize(
    ("nodes", "left_alone"),
    [
        ("s = Shape(x) y = Reshape<allowzero: int = 1>(x, s)", True),
        ("s = Shape(x) y = Reshape(x, s)", False),
        ("s = Shape(x) c = Cast<to: int = 9>(s) i = Cast<to: int = 7>(c) y = Reshape(x, i)", True),
    ],
    ids=["zero is zero", "zero keeps", "through a bool"],
)
def test_what_would_change_its_meaning_is_left_alone(nodes: str, left_alone: bool) -> None:
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[batch, 2] x) => (float[batch, 2] y) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    freeze_reshapes(model)
    assert (_targets(model) == [None]) == left_alone


def test_a_target_that_depends_on_values_is_left_alone() -> None:
    values = onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [2, 6])
    wanted = onnx.helper.make_tensor_value_info("wanted", onnx.TensorProto.INT64, [2])
    output = onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [None, None])
    node = onnx.helper.make_node("Reshape", ["input", "wanted"], ["output"], "reshape")
    graph = onnx.helper.make_graph([node], "g", [values, wanted], [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    before = model.SerializeToString()
    freeze_reshapes(model)
    assert model.SerializeToString() == before


def test_what_nothing_reads_any_more_is_gone() -> None:
    model, _ = _graph(lambda x: x.view(x.size(0), x.size(1), -1))
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    assert [node.op_type for node in model.graph.node] == ["Conv", "Reshape"]


def test_a_static_graph_has_its_numbers() -> None:
    model, _ = _graph(lambda x: x.view(x.size(0), x.size(1), -1), GraphRequest(13, 7))
    assert _targets(model) == [[2, 6, -1]]


def test_the_batch_keeps_its_name_and_channels_their_number() -> None:
    model, _ = _graph(lambda x: x * 2)
    batch, channels, height, width = model.graph.output[0].type.tensor_type.shape.dim
    assert (batch.dim_param, channels.dim_value) == ("batch", 6)
    assert not height.HasField("dim_value")
    assert not width.HasField("dim_value")
