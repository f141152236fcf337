"""What was chosen by measurement, for a person: a row for each form or setting that was tried, and what stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy_attn.tax_text import ratio_text

if TYPE_CHECKING:
    from deploy_attn.tuning.form_choice import FormChoice
    from deploy_attn.tuning.tune import Tuning

SETTING_COLUMNS = ("graph", "settings", "times as fast", "kept", "why")
FORM_COLUMNS = ("module", "form", "times as fast", "chosen", "why")
_NOISY = "too noisy"  # as the protocol refuses a claim


def setting_rows(tuning: Tuning) -> list[tuple[str, ...]]:
    """A row for all that was tried, as `SETTING_COLUMNS` names the cells."""
    return [
        (precision, str(one.settings), ratio_text(one.ratio), _mark(one.kept), _brief(one.reason))
        for precision, tuned in tuning.precisions.items()
        for one in tuned.tried
    ]


def form_rows(choice: FormChoice) -> list[tuple[str, ...]]:
    """A row for each form, as `FORM_COLUMNS` names the cells."""
    return [
        (one.module, one.form, ratio_text(one.ratio), _mark(one.chosen), _brief(one.reason)) for one in choice.tried
    ]


def setting_lines(tuning: Tuning) -> list[str]:
    """What stands, and where."""
    found = [f"{precision}: {tuned.settings}" for precision, tuned in tuning.precisions.items()]
    found.append(
        "each ratio is the best until then / what was tried, pair by pair; what is not faster by more than the "
        "control's error does not stay"
    )
    found += _undecided([one.reason for tuned in tuning.precisions.values() for one in tuned.tried])
    found.append(f"settings: {tuning.file}, which `engines.load`, `verify` and `bench` use")
    return found


def form_lines(choice: FormChoice) -> list[str]:
    """What a reader of the table must know, a line each."""
    if not choice.tried:
        return ["no module has an export form, so there was none to choose"]
    return _undecided([one.reason for one in choice.tried])


def _undecided(reasons: Sequence[str]) -> list[str]:
    noisy = sum(_NOISY in reason for reason in reasons)
    if not noisy:
        return []
    return [f"{noisy} of {len(reasons)} were not decided, because other programs ran: measure again when they do not"]


def _mark(kept: bool) -> str:
    return "yes" if kept else "-"


def _brief(reason: str) -> str:
    """Without what was seen in each block, which the file has."""
    return reason.partition(" (")[0]
