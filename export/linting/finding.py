"""What a rule finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Effect = Literal["refused", "wrong result", "slow", "risky"]


@dataclass(frozen=True)
class Finding:
    """One node (or the model) and one thing about it.

    Attributes:
        rule: the name of the rule, as `reduce-axes-input`.
        node: the node's name, or its first output's where it has none; empty for the whole model.
        op_type: its operator; empty for the whole model.
        effect: what happens on the target.
        why: what the target's parser, builder or arithmetic does with it.
        remedy: what to do.
        graph: the file that it is in; empty for a model in memory.
    """

    rule: str
    node: str
    op_type: str
    effect: Effect
    why: str
    remedy: str
    graph: str = ""

    @property
    def is_error(self) -> bool:
        """The engine would not be built, or would compute something else."""
        return self.effect in ("refused", "wrong result")
