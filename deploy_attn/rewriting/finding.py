"""What was found at one place of a network, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy_attn.export.certificate import Certificate


@dataclass(frozen=True)
class Finding:
    """One attention module of a network: where, what, why, and whether it was replaced.

    `paths` are all places where the same instance stands; the root is "".
    `class_name` is the user's own. `reason` says why it was left alone and is
    None where it was replaced.
    """

    paths: tuple[str, ...]
    class_name: str
    recognised_as: str
    evidence: tuple[str, ...]
    replaced: bool
    reason: str | None
    certificate: Certificate | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "paths": list(self.paths),
            "class": self.class_name,
            "recognised_as": self.recognised_as,
            "evidence": list(self.evidence),
            "replaced": self.replaced,
            "reason": self.reason,
            "certificate": None if self.certificate is None else self.certificate.as_dict(),
        }
