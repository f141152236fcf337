"""An export form where the network calls it with more than a map."""

from __future__ import annotations

from torch import Tensor, nn


class FirstMap(nn.Module):
    """Hands a form the one tensor of its call; what else the network passes was passed when the form was proven."""

    def __init__(self, form: nn.Module) -> None:
        super().__init__()
        self.form = form

    def forward(self, *positional: object, **named: object) -> Tensor:
        (x,) = (value for value in (*positional, *named.values()) if isinstance(value, Tensor))
        result: Tensor = self.form(x)
        return result
