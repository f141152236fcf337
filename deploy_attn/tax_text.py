"""The attention tax for a person: a row a block, and one for the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy_attn.engines.pairs import Paired
    from deploy_attn.tax import Cost, TaxReport

WORDS = 2  # columns of words; the rest are figures
COLUMNS = ("block", "what", "written ms", "rewritten ms", "removed ms", "gain", "costs")


def row(cost: Cost) -> tuple[str, ...]:
    """The cells of a place, as `COLUMNS` names them."""
    times = (_ms(value) for value in cost.milliseconds.values())
    share = "-" if cost.share is None else f"{100 * cost.share:.0f} %"
    return (cost.name, cost.recognised_as, *times, ratio_text(cost.gain), share)


def ratio_text(pair: Paired | None) -> str:
    """A ratio's median with its spread."""
    if pair is None:
        return "-"
    found = pair.as_dict()
    return f"{found['median']:.2f} ({found['p10']:.2f}..{found['p90']:.2f})"


def lines(report: TaxReport) -> list[str]:
    """What a reader of the table must know, a line each."""
    total = report.total
    attention = "unknown" if total.share is None else f"{100 * total.share:.1f} %"
    found = [
        f"attention takes {attention} of the network's time as exported; "
        f"as written the network takes {ratio_text(total.gain)} times as long as exported",
        f"control (one graph against itself, {len(report.control.ratios)} pairs): {ratio_text(report.control)}",
        "blocks are timed by themselves, the network as a whole; gain is written / rewritten within a pair, "
        "costs is what goes away with the attention",
    ]
    found += [f"{cost.name}: {cost.note}" for cost in (*report.blocks, total) if cost.note]
    found += [f"left alone, and in every version: {', '.join(one.paths)}: {one.reason}" for one in report.left_alone]
    conditions = report.conditions
    found.append(
        f"onnxruntime {conditions['version']} on {conditions['device']}, "
        f"{conditions['intra_op_threads']} thread(s), opset {conditions['opset']}"
    )
    return found


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
