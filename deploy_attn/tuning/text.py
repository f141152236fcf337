"""What was chosen by measurement, for a person: a row for each form or setting that was tried, and what stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from deploy_attn.tax_text import ratio_text

if TYPE_CHECKING:
    from deploy_attn.tuning.form_choice import FormChoice
    from deploy_attn.tuning.form_contest import TriedForm
    from deploy_attn.tuning.setting_search import Tried, Tuned
    from deploy_attn.tuning.tune import Tuning

SETTING_COLUMNS = ("graph", "settings", "times as fast", "kept", "why")
FORM_COLUMNS = ("module", "form", "times as fast", "chosen", "why")


def setting_rows(tuning: Tuning) -> list[tuple[str, ...]]:
    """A row for all that was tried, as `SETTING_COLUMNS` names the cells."""
    return [row for precision, tuned in tuning.precisions.items() for row in _rows(precision, tuned)]


def _rows(precision: str, tuned: Tuned) -> Iterator[tuple[str, ...]]:
    """Of one graph: what it has without tuning, then what was held against that."""
    stands = _mark(tuned.settings == tuned.start)
    yield (precision, str(tuned.start), ratio_text(None), stands, f"the default{_where(tuned)}")
    for one in tuned.tried:
        yield (precision, str(one.settings), ratio_text(one.ratio), _mark(one.kept), _brief(one.reason))


def form_rows(choice: FormChoice) -> list[tuple[str, ...]]:
    """A row for each form, as `FORM_COLUMNS` names the cells."""
    return [
        (one.module, one.form, ratio_text(one.ratio), _mark(one.chosen), _brief(one.reason)) for one in choice.tried
    ]


def setting_lines(tuning: Tuning) -> list[str]:
    """What stands, and where."""
    found = [f"{precision}: {tuned.settings}{_default(tuned)}" for precision, tuned in tuning.precisions.items()]
    found.append(
        "each ratio is the time of the best until then, at first of the default, over that of what was tried, pair by "
        "pair; what is not faster by more than the control's error does not stay"
    )
    found += _undecided([one for tuned in tuning.precisions.values() for one in tuned.tried])
    found.append(f"settings: {tuning.file}, which `engines.load`, `verify` and `bench` use")
    return found


def form_lines(choice: FormChoice) -> list[str]:
    """What a reader of the table must know, a line each."""
    if not choice.tried:
        return ["no module has an export form, so there was none to choose"]
    return _undecided(choice.tried)


def _default(tuned: Tuned) -> str:
    """What stands where nothing was faster beyond doubt; empty where something was."""
    return f": the default{_where(tuned)} stands" if tuned.settings == tuned.start else ""


def _where(tuned: Tuned) -> str:
    return " at that many threads" if tuned.start.intra_op_threads else " of onnxruntime"


def _undecided(tried: Sequence[Tried | TriedForm]) -> list[str]:
    undecided = sum(not one.decided for one in tried)
    if not undecided:
        return []
    why = "for noise or for want of pairs: measure again when nothing else runs"
    return [f"{undecided} of {len(tried)} were not decided, {why}"]


def _mark(kept: bool) -> str:
    return "yes" if kept else "-"


def _brief(reason: str) -> str:
    """Without what was seen in each block, which the file has."""
    return reason.partition(" (")[0]
