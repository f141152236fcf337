"""What a verification found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from deploy_attn.engines.tolerance import Tolerance
from deploy_attn.jetson.metrics import Comparison, as_dict, within


@dataclass(frozen=True)
class Check:
    """One graph, one way of running it, one case, one output."""

    graph: str
    precision: str
    bracket: str
    case: str
    output: str
    comparison: Comparison | None
    tolerance: Tolerance
    error: str | None = None

    @property
    def passed(self) -> bool:
        return self.comparison is not None and within(
            self.comparison, self.tolerance.rms_relative, self.tolerance.worst_relative
        )


@dataclass(frozen=True)
class Verdict:
    """What a verification found, and the conditions it was found under."""

    engine: str
    checks: tuple[Check, ...]
    conditions: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "passed": self.passed,
            "checks": [_check_as_dict(check) for check in self.checks],
            "conditions": dict(self.conditions),
        }


def _check_as_dict(check: Check) -> dict[str, Any]:
    return {
        "graph": check.graph,
        "precision": check.precision,
        "bracket": check.bracket,
        "case": check.case,
        "output": check.output,
        "passed": check.passed,
        "error": check.error,
        "measured": None if check.comparison is None else as_dict(check.comparison),
        "tolerance": asdict(check.tolerance),
    }
