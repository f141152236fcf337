"""What was found of the functions that a network calls, and what becomes of them in the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy_attn.export.certificate import Trial


@dataclass(frozen=True)
class FunctionFinding:
    """Equal calls of one function.

    Attributes:
        call: the function, the shapes of its tensors and its settings.
        paths: the modules whose forward calls it; the root is "".
        count: how many calls.
        replaced: whether the graph gets the exact form.
        reason: why not; None where it is replaced.
        trials: each call both ways in float64, on the network's own values, and one on noise.
    """

    call: str
    paths: tuple[str, ...]
    count: int
    replaced: bool
    reason: str | None
    trials: tuple[Trial, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "call": self.call,
            "paths": list(self.paths),
            "count": self.count,
            "replaced": self.replaced,
            "reason": self.reason,
            "trials": [trial.as_dict() for trial in self.trials],
        }
