"""Coordinate attention under names of others: found, replaced and exact; look-alikes are left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.modules.coordinate_forms import CoordinateGates
from tests.deploy_attn.rewriting.stem import check_in_onnxruntime, check_left_alone, check_replaced, network_with
from tests.torchvision_here import torchvision_here

C, H = 16, 6


class OwnSwish(nn.Module):
    """x relu6(x + 3) / 6."""

    def __init__(self) -> None:
        super().__init__()
        self.clamp = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.clamp(x + 3) / 6
        return out


class Strips(nn.Module):
    """Rows and columns joined through one layer and a norm; keys `conv1`, `bn1`, `conv_h`, `conv_w`."""

    def __init__(self, act: nn.Module, bias: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.rows, self.columns = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        self.conv1, self.bn1, self.act = nn.Conv2d(C, H, 1, bias=bias), nn.BatchNorm2d(H, eps=eps), act
        self.conv_h, self.conv_w = nn.Conv2d(H, C, 1, bias=bias), nn.Conv2d(H, C, 1, bias=bias)

    def reduced(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn1(self.conv1(x)))
        return out

    def gate(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        joined = self.reduced(torch.cat([self.rows(x), self.columns(x).permute(0, 1, 3, 2)], 2))
        rows, columns = torch.split(joined, [x.shape[2], x.shape[3]], 2)
        return self.combined(x, self.conv_h(rows), self.conv_w(columns.permute(0, 1, 3, 2)))

    def combined(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return x * self.gate(columns) * self.gate(rows)


class Kept(Strips):
    def combined(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return x + x * self.gate(columns) * self.gate(rows)


class OneGate(Strips):
    def combined(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return x * self.gate(columns + rows)


class ColumnsFirst(nn.Module):
    """Linear layers, that of the columns registered first."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.over, self.along = nn.Linear(C, H), nn.Linear(H, C), nn.Linear(H, C)

    def forward(self, x: Tensor) -> Tensor:
        columns, rows = (functional.silu(self.down(x.mean(axis).transpose(1, 2))) for axis in (2, 3))
        columns, rows = self.over(columns).transpose(1, 2), self.along(rows).transpose(1, 2)
        return x * torch.sigmoid(columns[:, :, None] + rows[..., None])


@pytest.mark.parametrize(
    ("module", "evidence"),
    [
        (Strips(OwnSwish()), "Hardswish (child act)"),
        (Strips(nn.ReLU(), bias=False, eps=1e-2), "ReLU (child act)"),
        (Kept(nn.Hardswish()), "the input added"),
        (OneGate(nn.SiLU()), "one gate of the sum of row and column"),
        (ColumnsFirst(), "rows along, columns over"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_every_variant_is_found_under_a_foreign_name_and_replaced(
    module: nn.Module, evidence: str, engine: str
) -> None:
    result = check_replaced(network_with(module, C), "coordinate", engine=engine)
    assert evidence in result.findings[0].evidence
    assert isinstance(result.model.get_submodule("attention"), CoordinateGates)


@pytest.mark.parametrize("module", [Strips(OwnSwish()), ColumnsFirst()], ids=["two gates", "one gate"])
def test_an_open_size_is_served(module: nn.Module) -> None:
    check_replaced(network_with(module, C), "coordinate", dynamic_size=True)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CoordAttn", {}),
        ("CoordAttn", {"bias": True, "has_skip": True, "gate_layer": "hard_sigmoid"}),
        ("CoordAttn", {"norm_layer": None, "act_layer": nn.ReLU}),
        ("SimpleCoordAttn", {}),
        ("SimpleCoordAttn", {"bias": False, "has_skip": True}),
    ],
)
def test_timms_modules_are_replaced_with_all_their_options(name: str, options: dict[str, Any]) -> None:
    torchvision_here()
    from timm.layers import coord_attn

    result = check_replaced(network_with(getattr(coord_attn, name)(C, **options), C), "coordinate")
    assert result.findings[0].evidence[0] == f"type timm.layers.coord_attn.{name}"


class Largest(Strips):
    """The largest of a row, not the mean."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__(act)
        self.rows = nn.AdaptiveMaxPool2d((None, 1))  # type: ignore[assignment]


class NormLast(Strips):
    def reduced(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn1(self.act(self.conv1(x)))
        return out


class Squared(Strips):
    def combined(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return x * self.gate(columns) * self.gate(rows) ** 2


class Softened(Strips):
    def gate(self, x: Tensor) -> Tensor:
        return x.softmax(1) + x.sigmoid() * 0


class Crossed(Strips):
    """Sums of the gates, not products."""

    def combined(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return x * (self.gate(columns) + self.gate(rows))


@pytest.mark.parametrize("kind", [Largest, NormLast, Squared, Softened, Crossed])
def test_the_same_keys_with_other_mathematics_are_left_alone(kind: type[Strips]) -> None:
    check_left_alone(network_with(kind(nn.Hardswish()), C))


@pytest.mark.parametrize("module", [Strips(OwnSwish()), ColumnsFirst()], ids=["two gates", "one gate"])
def test_the_graph_for_old_targets_holds_in_onnxruntime(module: nn.Module) -> None:
    check_in_onnxruntime(network_with(module, C))
