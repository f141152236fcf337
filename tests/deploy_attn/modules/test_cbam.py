"""CBAM and its residual version: which order the gate takes, and what each family makes of it."""

from __future__ import annotations

import pytest
import torch

from deploy_attn import create
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.modules.base import MapShape
from deploy_attn.modules.cbam import (
    BandedConvolution,
    PlanesConvolution,
    Pooling,
    PoolingInParts,
    planes_convolution_for_cpu,
)
from tests.deploy_attn.catalogue_cases import small


@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("name", "key", "mean_first"),
    [("cbam", "spatial_attention.conv.weight", True), ("cbam_residual", "sa.conv.weight", False)],
)
def test_the_two_sources_stack_their_planes_in_opposite_orders(
    name: str, key: str, mean_first: bool, family: str
) -> None:
    reference = small(name)
    of_the_mean = torch.tensor([mean_first, not mean_first]).reshape(1, 2, 1, 1)
    with torch.no_grad():
        reference.get_parameter(key).mul_(of_the_mean)  # the maxima are left out
    x = torch.randn(1, 32, 5, 6, dtype=torch.float64)
    form = reference.export_form((1, 32, 5, 6), family)
    conv = form.get_submodule("spatial_gate.conv")
    mean, largest, other = torch.randn(3, 1, 1, 5, 6, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.equal(conv(mean, largest), conv(mean, other))
        assert not torch.allclose(conv(mean, largest), conv(other, largest))
        assert torch.allclose(form(x), reference(x), rtol=1e-12)


@pytest.mark.parametrize("kernel_size", [1, 3, 7, 13])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (6, 1), (5, 8), (20, 3)])
def test_a_band_is_the_convolution(kernel_size: int, height: int, width: int) -> None:
    weight = torch.randn(1, 2, kernel_size, kernel_size, dtype=torch.float64)
    bias = torch.randn(1, dtype=torch.float64)
    first, second = torch.randn(2, 3, 1, height, width, dtype=torch.float64)
    wanted = torch.conv2d(torch.cat([first, second], 1), weight, bias, padding=kernel_size // 2)
    for form in (BandedConvolution(weight, bias, height, width), PlanesConvolution(weight, bias, (height, width))):
        assert torch.allclose(form(first, second), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("extents", "kernel_size", "kind"),
    [
        ((28, 28), 7, BandedConvolution),
        ((28, 85), 7, PlanesConvolution),
        ((28, 128), 49, BandedConvolution),
        ((28, 129), 49, PlanesConvolution),
        ((None, None), 7, PlanesConvolution),
    ],
)
def test_a_wide_or_open_plane_has_no_band(
    extents: tuple[int | None, int | None], kernel_size: int, kind: type[torch.nn.Module]
) -> None:
    assert type(planes_convolution_for_cpu(torch.zeros(1, 2, kernel_size, kernel_size), None, extents)) is kind


@pytest.mark.parametrize("channels", [1, 2, 9, 11, 12, 35])
@pytest.mark.parametrize("size", [(4, 6), (None, None)], ids=["known", "open"])
def test_pooling_in_parts_is_pooling(channels: int, size: tuple[int | None, int | None]) -> None:
    shape = MapShape(channels, *size)
    x = torch.randn(3, channels, 4, 6, dtype=torch.float64)
    for got, wanted in zip(PoolingInParts(shape)(x), Pooling(shape)(x), strict=True):
        assert torch.allclose(got, wanted, rtol=1e-13, atol=1e-15)


def test_a_kernel_larger_than_the_map_is_cropped_to_it() -> None:
    reference = create("cbam_residual", channels=32)
    for family, key, shape in (
        ("gpu", "spatial_gate.conv.first.weight", (1, 1, 9, 39)),
        ("cpu", "spatial_gate.conv.conv.weight", (20, 40, 1, 9)),
    ):
        assert reference.export_form((1, 32, 5, 20), family).get_parameter(key).shape == shape


@pytest.mark.parametrize("name", ["cbam", "cbam_residual"])
def test_the_gpu_form_joins_no_planes(name: str) -> None:
    form = small(name).export_form((1, 32, 6, 5), "gpu").float()
    with torch.inference_mode():
        nodes = onnx_from_module(form, torch.zeros(1, 32, 6, 5), GraphRequest(13, 7)).graph.node
    assert [node.name for node in nodes if node.op_type == "Concat"] == ["/channel_gate/Concat"]
    assert not {"Transpose", "Reshape"} & {node.op_type for node in nodes}
