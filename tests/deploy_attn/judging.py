"""A judge of candidates that goes by a table instead of a clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from deploy_attn.engines.latency.result import Blocks, Candidate, Comparison
from deploy_attn.engines.pairs import Paired


@dataclass
class Judge:
    """Compares as the protocol does, by `speed` of a candidate.

    Less than 5 % are no claim, nor is what is not beyond the control's `error`, as `refused` says. In so many of its
    blocks that are `spoiled` other programs ran.
    """

    speed: Callable[[Candidate], float]
    refused: str = "Less than 1.05. Measure with --pairs 300."
    error: float = 0.0
    spoiled: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, candidate: Candidate, twin: Candidate, baseline: Candidate) -> Comparison:
        assert candidate.conditions == twin.conditions
        for side in (candidate, twin, baseline):
            assert side.timer() > 0, "it runs"
        self.asked.append((candidate.label, baseline.label))
        ratio = self.speed(candidate) / self.speed(baseline)
        told = abs(ratio - 1) > max(self.error, 0.05)
        return Comparison(
            candidate,
            baseline,
            pairs=Paired((ratio,) * 40, (1.0,) * 40),
            control=Paired((1.0 + self.error,) * 40, (1.0,) * 40),
            blocks=Blocks(max(self.spoiled, 1), 0, spoiled=self.spoiled),
            claim=f"{ratio:.2f} times as fast." if told else None,
            refused="" if told else self.refused,
            conditions={},
        )
