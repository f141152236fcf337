"""What a plot says by its looks: claims, error bars, and times of which not all is known."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from matplotlib.figure import Figure as Sheet

from deploy_attn.html_report.blocks import Figure
from deploy_attn.html_report.facts import worst_error
from deploy_attn.html_report.plots import Interval, Point, accuracy_against_latency, ratios
from deploy_attn.html_report.svg import rendered
from deploy_attn.jetson.metrics import Comparison
from deploy_attn.jetson.parity import Check, Tolerance


def row(claimed: bool = True, error: float = 0.01) -> Interval:
    return Interval("against naive", "fp32", 1.5, 1.4, 1.6, error, claimed)


@pytest.mark.parametrize("claimed", [True, False])
def test_what_may_not_be_claimed_is_hollow(claimed: bool) -> None:
    assert ("fill: var(--paper)" in rendered(ratios("ratios", [row(claimed)]), "plot1")) is not claimed


def test_an_error_bar_lies_inside_its_plot() -> None:
    plot = rendered(ratios("ratios", [row(error=0.9)]), "plot1")
    (box,) = re.findall(r'viewBox="0 0 ([\d.]+)', plot)
    (bar,) = re.findall(r'<path d="M ([\d.-]+) \S+ L ([\d.-]+) \S+" style="[^"]*stroke-width: 5', plot)
    left, right = map(float, bar)
    assert 0 <= left < right <= float(box)


def axis(drawn: Figure) -> tuple[list[float], tuple[float, float]]:
    """The ticks of the horizontal axis of a plot, and its ends."""
    axes = Sheet().add_subplot()
    drawn.draw(axes)
    low, high = axes.get_xlim()
    return [float(tick) for tick in axes.get_xticks()], (low, high)


@pytest.mark.parametrize("error", [0.5, 1.1, 30.0])
def test_an_error_larger_than_the_ratio_leaves_the_other_rows_room(error: float) -> None:
    _, (low, high) = axis(ratios("ratios", [row(error=error), row()]))
    assert low == pytest.approx(min(1.5 / (1 + error), 1.0) / 1.2)
    assert high == pytest.approx(1.5 * (1 + error) * 1.2)


@pytest.mark.parametrize(("low", "high"), [(0.25, 28.0), (0.01, 900.0), (1e-9, 1e9)])
def test_ticks_of_a_wide_axis_are_even_on_it(low: float, high: float) -> None:
    ticks, _ = axis(accuracy_against_latency("times", [Point("cbam", "fp32", low, low, high, 1e-6)]))
    steps = [math.log10(following / tick) for tick, following in itertools.pairwise(ticks)]
    assert 3 <= len(ticks) <= 6
    assert max(steps) < 1.4 * min(steps)


@pytest.mark.parametrize(("low", "high"), [(0.97, 1.03), (0.13, 0.25), (3.0, 4.4), (1e-4, 1.1e-4)])
def test_an_axis_within_one_power_of_ten_has_ticks_enough_to_be_read(low: float, high: float) -> None:
    ticks, (left, right) = axis(accuracy_against_latency("times", [Point("cbam", "fp32", low, low, high, 1e-6)]))
    assert len(ticks) >= 3
    assert left <= min(ticks) < max(ticks) <= right


def test_a_point_without_a_p10_has_its_line_from_the_median() -> None:
    point = Point("cbam", "fp32", 4.0, math.nan, 5.0, 1e-6)
    known = Point("cbam", "fp32", 4.0, 4.0, 5.0, 1e-6)
    plots = [rendered(accuracy_against_latency("times", [one]), "plot1") for one in (point, known)]
    assert plots[0] == plots[1]
    assert "nan" not in plots[0]


def check(bracket: str, precision: str, error: float) -> Check:
    found = Comparison(0.1, error, 1.0, 0.1, (0,), 1.0, 1.0, 0)
    return Check("model.onnx", precision, bracket, "normal", "y", found, Tolerance(1e-2, 1e-2, ""))


def test_the_worst_error_is_of_what_an_engine_computes_in_that_precision() -> None:
    checks = [check("optimistic", "fp16", 1e-3), check("pessimistic", "fp16", 5e-3), check("exact", "fp32", 2e-3)]
    assert worst_error(checks, "fp16") == 1e-3
    assert worst_error(checks, "fp32") == 2e-3
    assert math.isnan(worst_error(checks, "int8"))
    assert math.isnan(worst_error([*checks, check("exact", "fp32", math.nan)], "fp32"))
