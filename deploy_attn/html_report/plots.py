"""The plots of a page, each from plain figures; what they show stands in a table as well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from deploy_attn.html_report.blocks import Figure
from deploy_attn.html_report.labels import Named, name_points
from deploy_attn.html_report.svg import BAND, BASELINE, FP16, FP32, INK, MUTED, PAPER, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis

_ROW = 0.36  # inches
_GAP = 0.45  # rows, between two comparisons
_SQUARE = 3.9
_EDGE = 0.75  # for the axis and its label
_LEAST_RATIO = 1e-3
_LEAST_ERROR = 1e-9  # none at all is drawn here
_MOST_HEADROOM = 1e9
_FEWEST_TICKS, _MOST_TICKS = 3, 6
_TAIL = 2.5  # times the 75 % quantile
_OVERFLOW, _GROWTH = 1.0, 4.0  # of headroom: none left, and what the plan keeps


@dataclass(frozen=True)
class Distribution:
    """Times of a candidate in milliseconds at even quantiles from 0 to 100 %; a baseline stands above its rival."""

    label: str
    kind: str
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Interval:
    """A ratio's median, its 10th and 90th percentile, the error bar of the median, and whether it bears a claim."""

    label: str
    precision: str
    median: float
    p10: float
    p90: float
    error: float
    claimed: bool


@dataclass(frozen=True)
class Point:
    """An artifact in one precision: milliseconds with their 10th (or NaN) and 90th percentile, against an error."""

    label: str
    precision: str
    milliseconds: float
    p10: float
    p90: float
    error: float


def distributions(title: str, found: Sequence[Distribution]) -> Figure:
    """A row for each candidate: all times as a line, nested bars for 90 and 50 % of them, the median as a tick."""
    description = (
        "Each row: the line spans all times, the pale bar 5 to 95 %, the dark bar 25 to 75 %, the tick is the median. "
        "What ends at the right edge goes on there."
    )
    return Figure(title, description, _EDGE + _ROW * (1 + _GAP / 2) * len(found), partial(_draw_distributions, found))


def _draw_distributions(found: Sequence[Distribution], axes: Axes) -> None:
    rows = [place + _GAP * (place // 2) for place in range(len(found))]
    for row, one in zip(rows, found):
        colour = _colour(one.kind)
        at = {5 * place: value for place, value in enumerate(one.quantiles)}
        axes.plot([at[0], at[100]], [row, row], color=colour, linewidth=1)
        axes.barh(row, at[95] - at[5], 0.34, at[5], color=colour, alpha=0.35, linewidth=0)
        axes.barh(row, at[75] - at[25], 0.34, at[25], color=colour, linewidth=0)
        axes.plot([at[50], at[50]], [row - 0.26, row + 0.26], color=INK, linewidth=1.6)
    _rows(axes, {row: one.label for row, one in zip(rows, found)})
    axes.set_xlabel("milliseconds")
    axes.set_xlim(0, _right([one.quantiles for one in found]))
    _few_ticks(axes)


def ratios(title: str, found: Sequence[Interval]) -> Figure:
    """A row for each comparison: p10..p90 of the pairs thin, the median with the control's error bar thick."""
    description = (
        "Each row: the dot is the median of baseline time over candidate time within pairs, the thick bar the error "
        "bar from the control pair, the thin line 10 to 90 % of the pairs. Right of 1 the candidate is faster. Of what "
        "is hollow, nothing may be claimed."
    )
    return Figure(title, description, _EDGE + _ROW * len(found), partial(_draw_ratios, found))


def _draw_ratios(found: Sequence[Interval], axes: Axes) -> None:
    axes.axvline(1, color=MUTED, linewidth=1, dashes=(3, 2))
    for row, one in enumerate(found):
        colour = _colour(one.precision)
        low, high = _error_bar(one)
        axes.plot([max(_LEAST_RATIO, one.p10), max(_LEAST_RATIO, one.p90)], [row, row], color=colour, linewidth=1)
        axes.plot([low, high], [row, row], color=colour, linewidth=5, alpha=0.5, solid_capstyle="butt")
        look: dict[str, Any] = {"color": colour, "markerfacecolor": colour if one.claimed else PAPER, "markersize": 5.5}
        axes.plot(max(_LEAST_RATIO, one.median), row, _marker(one.precision), **look)
    _rows(axes, dict(enumerate(one.label for one in found)))
    seen = [value for one in found for value in (max(_LEAST_RATIO, one.p10), one.p90, *_error_bar(one))]
    _logarithmic(axes.xaxis, *_span([*seen, 1.0]))
    axes.set_xlabel("times as fast as the baseline")


def _error_bar(one: Interval) -> tuple[float, float]:
    """As wide below the median as above it on a logarithmic axis, since an error may be larger than the ratio."""
    low, high = (max(_LEAST_RATIO, one.median * (1 + one.error) ** sign) for sign in (-1, 1))
    return low, high


def accuracy_against_latency(title: str, found: Sequence[Point]) -> Figure:
    """A point for each artifact and precision, with p10..p90 of its times."""
    description = (
        "Down is more accurate, left is faster. Round: FP32; square: FP16. The line through a point spans 10 to 90 % "
        "of its times, of a board's the median to 90 %. Times of different runs stand beside each other here only for "
        "a first look."
    )
    drawn = [one for one in found if one.milliseconds > 0 and one.error >= 0]  # NaN is neither
    return Figure(title, description, _SQUARE, partial(_draw_accuracy_against_latency, drawn))


def _draw_accuracy_against_latency(found: Sequence[Point], axes: Axes) -> None:
    for one in found:
        colour = _colour(one.precision)
        error = max(one.error, _LEAST_ERROR)
        low = one.p10 if one.p10 > 0 else one.milliseconds  # NaN is not
        axes.plot([low, one.p90], [error, error], color=colour, linewidth=1)
        axes.plot(one.milliseconds, error, _marker(one.precision), color=colour, markersize=6)
    _logarithmic(axes.xaxis, *_span([value for one in found for value in (one.p10, one.milliseconds, one.p90)]))
    _logarithmic(axes.yaxis, *_span([max(one.error, _LEAST_ERROR) for one in found], room=2.0))
    _gridded(axes, "milliseconds (median)", "worst RMS relative error")
    places = [(one.milliseconds, max(one.error, _LEAST_ERROR)) for one in found]
    name_points(axes, [Named(one.label, place, one.precision == "fp16") for one, place in zip(found, places)])


@dataclass(frozen=True)
class Work:
    """Operations for each byte that must move, and 10^9 operations a second, Gop/s: measured, or as the floor."""

    label: str
    precision: str
    intensity: float
    rate: float
    measured: bool


@dataclass(frozen=True)
class Roof:
    """10^9 bytes and 10^9 operations a second that a target can at most, in a precision."""

    precision: str
    bandwidth: float
    peak: float


def roofline(title: str, roofs: Sequence[Roof], found: Sequence[Work]) -> Figure:
    """Rates against intensity, both logarithmic, under the roofs of a target where they are known."""
    description = (
        "Up: more operations a second, in 10^9. Right: more operations for each byte. Filled points were measured, "
        "hollow ones are where the floor lies. Round: FP32; square: FP16. The rising part of a line is the bandwidth, "
        "the level part the peak."
    )
    drawn = [one for one in found if one.intensity > 0 and one.rate > 0]  # NaN is neither
    return Figure(title, description, _SQUARE, partial(_draw_roofline, roofs, drawn))


def _draw_roofline(roofs: Sequence[Roof], found: Sequence[Work], axes: Axes) -> None:
    low, high = _span([one.intensity for one in found] + [roof.peak / roof.bandwidth for roof in roofs], 2.0)
    rates = [one.rate for one in found]
    for roof in roofs:
        ridge = roof.peak / roof.bandwidth
        line = [low * roof.bandwidth, roof.peak, roof.peak]
        axes.plot([low, ridge, high], line, color=_colour(roof.precision), linewidth=1.4)
        side = "top" if roof.precision == "fp16" else "bottom"  # the peaks of a CPU are one
        axes.annotate(roof.precision.upper(), (high, roof.peak), ha="right", va=side, fontsize=8)
        rates += [roof.peak, low * roof.bandwidth]
    for one in found:
        colour = _colour(one.precision)
        fill = colour if one.measured else "none"
        look = _marker(one.precision)
        axes.plot(one.intensity, one.rate, look, color=colour, markerfacecolor=fill, markersize=6)
    _logarithmic(axes.xaxis, low, high)
    _logarithmic(axes.yaxis, *_span(rates, room=1.6))
    _gridded(axes, "operations a byte", "Gop/s")
    named = {(one.label, one.precision) for one in found if one.measured}  # their floors are right above
    texts = [one.label if one.measured or (one.label, one.precision) not in named else "" for one in found]
    points = [Named(text, (one.intensity, one.rate), one.precision == "fp16") for text, one in zip(texts, found)]
    name_points(axes, points)


def headroom(title: str, found: Sequence[tuple[str, float]]) -> Figure:
    """A row for each tensor: how many times larger its largest magnitude could be before FP16 overflows."""
    description = (
        "Each row: how many times the largest magnitude that was measured fits below 65504, where FP16 overflows. "
        f"Left of 1 it overflows; left of {_GROWTH:g} the plan keeps what makes it in FP32."
    )
    return Figure(title, description, _EDGE + _ROW * len(found), partial(_draw_headroom, found))


def _draw_headroom(found: Sequence[tuple[str, float]], axes: Axes) -> None:
    seen = [min(max(value, _LEAST_RATIO), _MOST_HEADROOM) for _, value in found]
    low, high = _span([*seen, _OVERFLOW, _GROWTH])
    axes.axvspan(low, _GROWTH, color=BAND, linewidth=0)
    for limit in (_OVERFLOW, _GROWTH):
        axes.axvline(limit, color=MUTED, linewidth=1, dashes=(3, 2))
    for row, value in enumerate(seen):
        axes.plot([low, value], [row, row], color=BASELINE if value >= _GROWTH else FP16, linewidth=3)
        axes.plot(value, row, "o", color=INK, markersize=3.5)
    _rows(axes, dict(enumerate(text for text, _ in found)))
    _logarithmic(axes.xaxis, low, high)
    axes.set_xlabel("times below overflow")


def _colour(kind: str) -> str:
    return {"fp32": FP32, "fp16": FP16}.get(kind, BASELINE)


def _marker(precision: str) -> str:
    return "s" if precision == "fp16" else "o"


def _gridded(axes: Axes, across: str, up: str) -> None:
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.set(xlabel=across, ylabel=up)


def _rows(axes: Axes, labels: Mapping[float, str]) -> None:
    """Labels above their rows, so that the whole width is the axis's."""
    for row, text in labels.items():
        place = axes.get_yaxis_transform()
        axes.text(0, row - 0.3, label(text), transform=place, va="bottom", ha="left", fontsize=8.5)
    axes.set_ylim(max(labels) + 0.5, -0.85)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)


def _span(values: Sequence[float], room: float = 1.2) -> tuple[float, float]:
    """A little more than the values take of a logarithmic axis."""
    kept = [value for value in values if value > 0] or [1.0]
    return min(kept) / room, max(kept) * room


def _right(quantiles: Sequence[tuple[float, ...]]) -> float:
    """Where an axis of times ends: with them all, unless a long tail would press the rest together."""
    longest, three_quarters = max(one[-1] for one in quantiles), max(one[15] for one in quantiles)
    return 1.05 * min(longest, _TAIL * three_quarters) or 1.0


def _few_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))


def _logarithmic(axis: XAxis | YAxis, low: float, high: float) -> None:
    """From low to high, with a few ticks that read as numbers, 0.5 and 20, not as powers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    by_step = [
        [tick for tick in (m * 10.0**power for power in powers for m in step) if low <= tick <= high]
        for step in ((1, 2, 5), (1, 3), (1,))
    ]
    ticks = next((found for found in by_step if len(found) <= _MOST_TICKS), by_step[-1])
    ticks = ticks[:: math.ceil(len(ticks) / _MOST_TICKS) or 1]
    if len(ticks) < _FEWEST_TICKS:  # the ends lie within one power
        even = MaxNLocator(_MOST_TICKS - 1, min_n_ticks=_FEWEST_TICKS).tick_values(low, high)
        ticks = [tick for tick in even if low <= tick <= high]
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
