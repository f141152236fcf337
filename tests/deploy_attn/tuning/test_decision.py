"""What a comparison decides: a claim does, and so does a ratio too small to be hidden by the control's error."""

from __future__ import annotations

import pytest

from deploy_attn.engines.latency.claim import claim_of
from deploy_attn.engines.latency.result import Blocks, Candidate, Comparison
from deploy_attn.engines.pairs import Paired
from deploy_attn.tuning.decision import decision_of


def compared(ratio: float, error: float, count: int) -> Comparison:
    """Two candidates and what the protocol would claim of them."""
    pairs, control = Paired((ratio,) * count, (1.0,) * count), Paired((1 + error,) * count, (1.0,) * count)
    claim = claim_of("it", "the other", pairs, control)
    one = Candidate("it", lambda: None)
    return Comparison(one, one, pairs, control, Blocks(1, 0), claim.text, claim.refused, {})


@pytest.mark.parametrize(
    ("ratio", "error", "count", "faster", "decided"),
    [
        (1.5, 0.01, 40, True, True),
        (0.7, 0.01, 40, False, True),
        (1.06, 0.01, 300, True, True),
        (1.0, 0.01, 300, False, True),
        (1.0, 0.01, 40, False, True),  # too few pairs for a claim, and nothing of that size to claim
        (1.06, 0.01, 40, False, False),  # it may be one of 1.05, and the pairs do not tell
        (1.0, 0.06, 300, False, False),  # the error may hide one of 1.05
        (1.3, 0.4, 300, False, False),
        (0.8, 0.15, 300, False, True),
        (0.8, 0.3, 300, False, False),
        (0.9, 0.12, 300, False, True),  # no claim that it is slower, but none of 1.05 is hidden
        (1.04, 0.04, 300, False, True),
    ],
)
def test_a_challenger_is_faster_or_not_or_it_is_not_decided(
    ratio: float, error: float, count: int, faster: bool, decided: bool
) -> None:
    found = decision_of(compared(ratio, error, count))
    assert (found.faster, found.decided) == (faster, decided)
    assert found.reason


def test_a_reason_is_without_the_options_of_bench() -> None:
    assert "--pairs" not in decision_of(compared(1.07, 0.01, 40)).reason
