"""What may be said of a ratio: enough pairs for its size, and beyond what the control shows of the machine."""

from __future__ import annotations

from dataclasses import dataclass

from deploy_attn.engines.latency.result import error_bar
from deploy_attn.engines.pairs import Paired

# A ratio of at least the first takes so many pairs: medians of that many repeat within a third of the difference.
NEEDS = ((1.10, 30), (1.05, 300))
FEWEST_PAIRS = NEEDS[0][1]
MOST_NEEDED = NEEDS[-1][1]


@dataclass(frozen=True)
class Claim:
    """One sentence, or None and why there is none."""

    text: str | None
    refused: str = ""


def claim_of(candidate: str, baseline: str, pairs: Paired, control: Paired) -> Claim:
    """What may be claimed of a candidate against a baseline.

    Args:
        candidate: its label.
        baseline: the other's.
        pairs: the baseline's times first.
        control: the candidate against itself.
    """
    refused = _too_few(pairs, control) or _too_small(pairs, control) or _not_beyond(pairs, control)
    if refused:
        return Claim(None, refused)
    faster = pairs.ratio > 1
    said = f"is {_size(pairs):.2f} times as fast as" if faster else f"takes {_size(pairs):.2f} times as long as"
    return Claim(f"{candidate} {said} {baseline}, give or take {100 * error_bar(control):.1f} %.")


def _size(pairs: Paired) -> float:
    """The ratio, or its inverse where that is above 1."""
    return pairs.ratio if pairs.ratio >= 1 else 1 / pairs.ratio


def _too_few(pairs: Paired, control: Paired) -> str:
    count, size = min(len(pairs.ratios), len(control.ratios)), _size(pairs)
    needed = FEWEST_PAIRS if size >= NEEDS[0][0] else MOST_NEEDED
    if count >= needed:
        return ""
    if count < FEWEST_PAIRS:
        return (
            f"{count} pairs bear no claim: one of {NEEDS[0][0]:.2f} times needs {FEWEST_PAIRS}, one of "
            f"{NEEDS[1][0]:.2f} times {MOST_NEEDED}. Measure with --pairs {needed}."
        )
    return (
        f"A ratio of {pairs.ratio:.3f} is one of less than {NEEDS[0][0]:.2f} times, which needs {MOST_NEEDED} pairs; "
        f"there are {count}. Measure with --pairs {MOST_NEEDED}."
    )


def _too_small(pairs: Paired, control: Paired) -> str:
    least = NEEDS[-1][0]
    if _size(pairs) >= least or error_bar(control) >= least - 1:
        return ""
    return (
        f"A ratio of {pairs.ratio:.3f} with an error bar of {error_bar(control):.3f} is less than {least:.2f} times "
        "either way, and no such difference is claimed."
    )


def _not_beyond(pairs: Paired, control: Paired) -> str:
    error, difference = error_bar(control), _size(pairs) - 1
    if difference <= error:
        return (
            f"The machine is too noisy to tell: the control, one graph against itself, may be off 1.00 by {error:.3f} "
            f"(its median is {control.ratio:.3f}), and the difference of {difference:.3f} is not more than that. "
            "End other programs, fix the clocks, or take more pairs."
        )
    low, high = pairs.interval
    if low <= 1 <= high:
        return (
            f"The median of the ratio lies somewhere from {low:.3f} to {high:.3f}, which may be either side of 1. Take "
            "more pairs."
        )
    return ""
