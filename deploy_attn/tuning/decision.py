"""What a comparison says of a challenger: faster, not faster, or not decided."""

from __future__ import annotations

from dataclasses import dataclass

from deploy_attn.engines.latency.claim import NEEDS
from deploy_attn.engines.latency.result import Comparison

_LEAST = NEEDS[-1][0] - 1  # the smallest difference that is ever claimed


@dataclass(frozen=True)
class Decision:
    """Whether a challenger is faster than what it was held against.

    Attributes:
        faster: by more than the control's error.
        decided: whether it is known to be faster, or not to be by as much as is ever claimed. Noise may hide that.
        error: the control's error bar.
        reason: in a few words.
    """

    faster: bool
    decided: bool
    error: float
    reason: str


def decision_of(compared: Comparison) -> Decision:
    """The decision over a challenger, which is the comparison's candidate."""
    gain = compared.pairs.ratio - 1
    if compared.claim is not None:
        return Decision(gain > 0, True, compared.error, compared.claim if gain > 0 else "it is slower")
    # What follows in a refusal is about options of `bench`.
    reason = compared.refused.partition(". ")[0]
    decided = gain < _LEAST and compared.error < max(_LEAST, _LEAST - gain)
    return Decision(False, decided, compared.error, reason)
