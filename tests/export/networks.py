"""Small networks that several tests of this room use."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Returns(nn.Module):
    """A network that returns whatever a function makes."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)
