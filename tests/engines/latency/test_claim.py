"""What may be claimed: so many pairs for a difference, beyond the control's error bar, on one side of 1 for sure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_attn.engines.latency.claim import claim_of
from deploy_attn.engines.pairs import Paired


def pairs(ratio: float, count: int, spread: float = 0.0) -> Paired:
    """Ratios around one value, evenly spread."""
    steps = [spread * (2 * place / max(count - 1, 1) - 1) for place in range(count)]
    return Paired(tuple(ratio * (1 + step) for step in steps), (1.0,) * count)


QUIET = pairs(1.0, 300, 0.01)


@pytest.mark.parametrize(
    ("versus", "control", "words"),
    [
        (pairs(1.2, 29), pairs(1.0, 29), "needs 30"),
        (pairs(1.2, 1), pairs(1.0, 1), "--pairs 30"),
        (pairs(1.07, 29), pairs(1.0, 29), "--pairs 300"),
        (pairs(1.099, 299), QUIET, "needs 300 pairs"),
        (pairs(1.2, 300), pairs(1.0, 29), "needs 30"),
        (pairs(1.02, 300), QUIET, "less than 1.05 times"),
        (pairs(0.97, 300), QUIET, "less than 1.05 times"),
        (pairs(1.2, 30), pairs(1.3, 30), "too noisy"),
        (pairs(1.2, 30), pairs(0.7, 30), "too noisy"),
        (pairs(1.25, 30), pairs(1.25, 30), "too noisy"),
        (pairs(1.03, 300), pairs(1.0, 300, 0.9), "too noisy"),
        (pairs(1.2, 30, 0.9), pairs(1.0, 30), "either side of 1"),
    ],
)
def test_a_claim_that_does_not_hold_is_not_made_and_the_reason_is_said(
    versus: Paired, control: Paired, words: str
) -> None:
    claim = claim_of("new", "old", versus, control)
    assert claim.text is None
    assert words in claim.refused


@pytest.mark.parametrize(
    ("versus", "text"),
    [
        (pairs(1.1, 30), "new is 1.10 times as fast as old"),
        (pairs(1.0501, 300), "new is 1.05 times as fast as old"),
        (pairs(0.5, 30), "new takes 2.00 times as long as old"),
        (pairs(20.0, 30), "new is 20.00 times as fast as old"),
    ],
)
def test_a_claim_says_which_is_faster_and_by_how_much(versus: Paired, text: str) -> None:
    claim = claim_of("new", "old", versus, QUIET)
    assert claim.text is not None
    assert claim.text.startswith(text)
    assert "give or take" in claim.text
    assert claim.refused == ""


@given(
    ratios=st.lists(st.floats(0.05, 20), min_size=1, max_size=400),
    own=st.lists(st.floats(0.5, 2), min_size=1, max_size=400),
)
def test_whatever_was_measured_there_is_either_a_claim_or_a_reason(ratios: list[float], own: list[float]) -> None:
    versus, control = (Paired(tuple(values), (1.0,) * len(values)) for values in (ratios, own))
    claim = claim_of("new", "old", versus, control)
    assert (claim.text is None) == bool(claim.refused)
    if claim.text is not None:
        size = max(versus.ratio, 1 / versus.ratio)
        assert size >= 1.05
        assert min(len(ratios), len(own)) >= (30 if size >= 1.10 else 300)
        assert size - 1 > abs(control.ratio - 1)
