"""What a plot says by its looks: claims, error bars, and times of which not all is known."""

from __future__ import annotations

import math
import re

import pytest

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
