"""Non-local: pairs by hand, where projections stand, and which matrices are never built."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from deploy_attn import BadRequest, create
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.modules.base import ReferenceForm
from tests.deploy_attn.catalogue_cases import small


@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.parametrize("family", ["reference", "cpu", "gpu", "open size"])
def test_concatenation_is_what_a_loop_over_pairs_computes(family: str, sub_sample: bool) -> None:
    reference = small("non_local", 4, mode="concatenation", sub_sample=sub_sample)
    form: nn.Module = reference
    if family != "reference":
        engine = "gpu" if family == "open size" else family
        form = reference.export_form((1, 4, 4, 5), engine, dynamic_size=family == "open size")
    x = torch.randn(1, 4, 4, 5).double()
    with torch.inference_mode():
        torch.testing.assert_close(form(x), _by_pairs(reference, x))


def _by_pairs(reference: Any, x: Tensor) -> Tensor:
    theta, phi, g = (part(x)[0].flatten(1) for part in (reference.theta, reference.phi, reference.g))
    w = reference.concat_project[0].weight.flatten()
    y = torch.zeros_like(theta)
    for i in range(theta.shape[1]):
        for j in range(phi.shape[1]):
            y[:, i] += torch.relu(w @ torch.cat([theta[:, i], phi[:, j]])) * g[:, j] / phi.shape[1]
    projected: Tensor = reference.W(y.reshape(1, -1, *x.shape[2:]))
    return projected + x


@pytest.mark.parametrize("layout", ["channels last", "transposed"])
@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.parametrize("mode", ["embedded_gaussian", "gaussian", "dot_product", "concatenation"])
def test_any_layout_in_memory_gives_the_same(mode: str, sub_sample: bool, layout: str) -> None:
    reference = small("non_local", 4, mode=mode, sub_sample=sub_sample)
    x = torch.randn(2, 4, 4, 6).double()
    transposed = x.transpose(2, 3).contiguous().transpose(2, 3)
    other = transposed if layout == "transposed" else x.contiguous(memory_format=torch.channels_last)
    assert not other.is_contiguous()
    with torch.inference_mode():
        torch.testing.assert_close(reference(other), reference(x))


@pytest.mark.parametrize("bn_layer", [False, True])
def test_a_new_block_is_the_identity(bn_layer: bool) -> None:
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(create("non_local", channels=8, bn_layer=bn_layer).eval()(x), x)


@pytest.mark.parametrize(("scale", "divisor"), [("none", 1), ("inter_channels", 2), ("channels", 4)])
def test_a_scale_divides_the_logits_by_a_root(scale: str, divisor: float) -> None:
    reference: Any = small("non_local", 16, inter_channels=4, scale=scale)
    unscaled: Any = create("non_local", channels=16, inter_channels=4).double().eval()
    unscaled.load_state_dict(reference.state_dict())
    x = torch.randn(1, 16, 4, 6).double()
    with torch.inference_mode():
        unscaled.theta.weight.div_(divisor)
        unscaled.theta.bias.div_(divisor)
        torch.testing.assert_close(reference(x), unscaled(x))
        for family in ("cpu", "gpu"):
            torch.testing.assert_close(reference.export_form((1, 16, 4, 6), family)(x), unscaled(x))


def test_a_scale_of_other_modes_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"mode=dot_product, scale=channels: it needs .* scale=none"):
        create("non_local", channels=8, mode="dot_product", scale="channels")


@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize(("height", "depth"), [(4, 32), (16, 16)], ids=["moved", "in-place"])
def test_theta_moves_behind_phi_where_that_saves_products(family: str, height: int, depth: int) -> None:
    reference = small("non_local", 32)
    shape = (1, 32, height, 6)
    form = reference.export_form(shape, family).eval()
    x = torch.randn(shape).double()
    with torch.inference_mode():
        torch.testing.assert_close(form(x), reference(x))
    graph, shapes = _graph(reference, shape, family)
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    softmax = next(node for node in graph.node if node.op_type == "Softmax")
    logits = next(node for node in graph.node if node.output[0] == softmax.input[0])
    product = products[logits.input[0]] if logits.op_type == "Add" else logits
    assert shapes[product.input[0]][-1] == depth


@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize("mode", ["dot_product", "concatenation"])
def test_neither_pairs_nor_an_unneeded_matrix_of_weights_is_built(family: str, mode: str) -> None:
    _, shapes = _graph(small("non_local", 4, mode=mode, sub_sample=False), (1, 4, 5, 7), family)
    of_pairs = [extents for extents in shapes.values() if extents.count(35) == 2]
    assert of_pairs == ([] if mode == "dot_product" else [[1, 35, 35]] * 2)


@pytest.mark.parametrize("open_size", [False, True])
def test_a_product_of_phi_and_g_does_not_grow_with_the_map(open_size: bool) -> None:
    reference = small("non_local", 4, mode="dot_product")
    largest = []
    for extent in (4, 32):
        form: Any = reference.export_form((1, 4, extent, extent), "gpu", dynamic_size=open_size).float().eval()
        with torch.inference_mode():
            model = onnx_from_module(form, torch.ones(1, 4, extent, extent), GraphRequest(13, 7))
        largest.append(_largest_product(model, extent))
    torch.testing.assert_close(*largest)


def _largest_product(model: onnx.ModelProto, extent: int) -> Tensor:
    """max |g phi^T| on a map of ones: the product of which neither factor is a weight, and the result is d d."""
    from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner

    weights = {tensor.name for tensor in model.graph.initializer}
    product = next(n for n in model.graph.node if n.op_type == "MatMul" and not weights & set(n.input))
    model.graph.output.append(onnx.helper.make_tensor_value_info(product.output[0], onnx.TensorProto.FLOAT, None))
    with OnnxRuntimeRunner(model.SerializeToString()) as run:
        outputs = run.infer({"input": torch.ones(1, 4, extent, extent).numpy()})
    return torch.from_numpy(outputs[product.output[0]]).abs().max()


def _graph(reference: ReferenceForm, shape: tuple[int, int, int, int], family: str) -> tuple[Any, dict[str, list[int]]]:
    """The graph of a form, and the shapes of the tensors that it makes."""
    form = reference.export_form(shape, family).float().eval()
    with torch.inference_mode():
        model = onnx_from_module(form, torch.zeros(shape), GraphRequest(13, 7))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in inferred.value_info
    }
    return model.graph, shapes
