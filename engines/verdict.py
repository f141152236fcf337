"""What a verification found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy_attn.jetson.parity import Check as Check


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
            "checks": [check.as_dict() for check in self.checks],
            "conditions": dict(self.conditions),
        }
