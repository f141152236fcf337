"""Coordinate attention, the export form.

Coordinate Attention for Efficient Mobile Network Design, arXiv 2103.02907,
section 3.2, equations (4) to (8).

The authors' code joins the means of the rows and those of the columns, the
latter transposed, runs one layer over both, and splits and transposes the
result. That layer is 1x1, and so is everything after it: here it runs once over
each, in the layout that its gate is needed in, and nothing is joined, split or
transposed.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from deploy_attn.modules.base import pointwise
from deploy_attn.modules.cbam import Weights
from deploy_attn.modules.channel_gate import Elementwise


class Coordinates(NamedTuple):
    """The layers of coordinate attention, and its two functions.

    Attributes:
        reduce: `hidden c`, for rows and columns alike, a norm folded in.
        of_rows: `c hidden`.
        of_columns: `c hidden`.
        hidden: after the first layer.
        gate: after the others.
    """

    reduce: Weights
    of_rows: Weights
    of_columns: Weights
    hidden: Elementwise
    gate: Elementwise


class Combination(NamedTuple):
    """What becomes of the map and the logits of rows and columns.

    Attributes:
        one_gate: x * gate(row + column), else x * gate(row) * gate(column).
        added: the input is added at the end.
    """

    one_gate: bool
    added: bool


class CoordinateGates(nn.Module):
    """The map gated by its rows and its columns, `b c h w -> b c h w`."""

    def __init__(self, layers: Coordinates, combination: Combination, engine: str) -> None:
        super().__init__()
        self.reduce = pointwise(*layers.reduce)
        self.of_rows = pointwise(*layers.of_rows)
        self.of_columns = pointwise(*layers.of_columns)
        self.hidden = layers.hidden
        self.gate = layers.gate
        self.combination = combination
        # Else a CPU keeps both logits in blocks of channels, and adds them to a map of such blocks at half the speed.
        self.rows_lie = combination.one_gate and engine == "cpu"

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(3, keepdim=True)  # (B, C, H, 1)
        if self.rows_lie:
            rows = self.of_rows(self._reduced(means.transpose(2, 3))).transpose(2, 3)
        else:
            rows = self.of_rows(self._reduced(means))
        columns = self.of_columns(self._reduced(x.mean(2, keepdim=True)))  # (B, C, 1, W)
        gated = self._gated(x, rows, columns)
        return gated + x if self.combination.added else gated

    def _gated(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        if self.combination.one_gate:
            return x * self.gate(rows + columns)
        return x * self.gate(rows) * self.gate(columns)

    def _reduced(self, means: Tensor) -> Tensor:
        return self.hidden(self.reduce(means))
