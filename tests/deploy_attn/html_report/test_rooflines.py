"""Roofs over what a CPU was measured at: which floor, which bandwidth, and what is said of both."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy_attn.engines.roofline import NOWHERE, estimate
from deploy_attn.html_report import rooflines
from deploy_attn.html_report.blocks import Figure, Section, Table
from deploy_attn.html_report.facts import standings
from deploy_attn.html_report.page import page_report
from deploy_attn.html_report.plots import Roof, Work
from deploy_attn.html_report.plots import roofline as drawn
from deploy_attn.html_report.subjects import subjects_of
from deploy_attn.html_report.svg import rendered
from deploy_attn.jetson.errors import BadRequest
from tests.deploy_attn.html_report.samples import comparison, rewritten, under_a_roof, write_bench
from tests.engines.latency.fakes import LIMITS

Plot = tuple[str, list[Roof], list[Work]]


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch) -> list[Plot]:
    """What is drawn: title, roofs and points of each plot."""
    found: list[Plot] = []

    def kept(title: str, roofs: list[Roof], points: list[Work]) -> Figure:
        found.append((title, list(roofs), points))
        return drawn(title, roofs, points)

    monkeypatch.setattr(rooflines, "roofline", kept)
    return found


def section(*folders: Path) -> Section:
    subjects = subjects_of(folders)
    return rooflines.roofline_section(subjects, [one for subject in subjects for one in standings(subject)])


def told(found: Section) -> str:
    return " ".join(getattr(block, "text", "") for block in found.blocks)


def floors(found: Section, place: str) -> list[tuple[str, ...]]:
    (table,) = (one for one in found.blocks if isinstance(one, Table) and one.caption.startswith(f"Floors on {place}"))
    return list(table.rows)


def bench_here(folder: Path, milliseconds: float = 0.2, cache: str = "hot", **limits: Any) -> None:
    conditions = under_a_roof(replace(LIMITS, **limits), cache)
    write_bench(
        folder,
        *(comparison(kind, "naive", 1.5, milliseconds, conditions=conditions) for kind in ("fp32", "fp16")),
    )


@pytest.mark.parametrize(("cache", "bandwidth"), [("hot", 140.0), ("cold", 40.0)])
def test_times_of_a_cpu_stand_under_the_roof_of_their_cache_regime(
    folder: Path, cache: str, bandwidth: float, plots: list[Plot]
) -> None:
    bench_here(folder, cache=cache)
    found = section(folder)
    place = f"onnxruntime, 2 threads, {cache} caches"
    title, roofs, points = next(one for one in plots if place in one[0])
    assert title.startswith("Roofline of")
    assert roofs == [Roof("fp32", bandwidth, 240.0), Roof("fp16", bandwidth, 480.0)]
    assert [(one.precision, one.measured) for one in points] == [
        ("fp32", False),
        ("fp32", True),
        ("fp16", False),
        ("fp16", True),
    ]
    work = estimate(folder, NOWHERE, "fp32").work
    operations = sum(one.operations for one in work.operations.values())
    floor = 1e3 * max(work.traffic.least / bandwidth / 1e9, operations / 240e9)
    row = floors(found, place)[0]
    assert float(row[6].replace(",", "")) == pytest.approx(floor, rel=0.01)
    assert points[0].rate == pytest.approx(operations / floor / 1e6)
    assert float(row[8].replace(",", "")) == pytest.approx(0.2 / floor, rel=0.1)
    assert f"{bandwidth:g} GB/s (" in told(found)
    assert "240 Gop/s in FP32 (a product, 2 threads)" in told(found)
    assert not any("Operations a second" in title for title, _, _ in plots)


def test_the_markdown_and_the_conditions_hold_the_same_limits(folder: Path) -> None:
    bench_here(folder)
    text = page_report([folder], "markdown").text
    assert "140 GB/s (a copy, 1.6 MB in hot caches, 2 threads)" in text
    assert re.search(r"\| onnxruntime \| limits\.hot\\_gb\\_per\\_s \| 140 \|", text)
    assert "| onnxruntime | limits.kernels.hot | a copy |" in text


def test_the_roof_of_several_artifacts_is_the_highest_and_each_floor_its_own(folder: Path, plots: list[Plot]) -> None:
    other = Path("other")
    shutil.copytree(folder, other)
    rewritten(other, lambda manifest: manifest.update(name="other"))
    bench_here(folder)
    bench_here(other, hot_gb_per_s=7.0, fp32_gflops=300.0)
    rows = floors(section(folder, other), "onnxruntime")
    (roofs,) = (roofs for title, roofs, _ in plots if "onnxruntime" in title)
    assert roofs == [Roof("fp32", 140.0, 300.0), Roof("fp16", 140.0, 480.0)]
    first, second = (float(row[6]) for row in rows if row[1] == "fp32")
    assert second == pytest.approx(estimate(other, NOWHERE, "fp32").work.traffic.least / 7e6, rel=0.01)
    assert second > 10 * first


@pytest.mark.parametrize(("disturbed", "said"), [("other processes used 1.0 cores", True), ("", False)])
def test_what_ran_while_the_roof_was_measured_is_said(folder: Path, disturbed: str, said: bool) -> None:
    bench_here(folder, disturbed=disturbed)
    assert ("the machine may do more" in told(section(folder))) == said


@pytest.mark.parametrize(("milliseconds", "said"), [(1e-6, True), (1.0, False)])
def test_a_time_below_its_floor_is_said_to_be_no_wonder(folder: Path, milliseconds: float, said: bool) -> None:
    bench_here(folder, milliseconds)
    assert ("took less than its floor" in told(section(folder))) == said


def test_times_without_limits_are_rates_beside_those_with(folder: Path, plots: list[Plot]) -> None:
    known = comparison("fp32", "naive", 1.5, 0.2, conditions=under_a_roof(LIMITS))
    unknown = comparison("fp16", "naive", 1.5, 0.2, conditions={**under_a_roof(LIMITS), "limits": None})
    write_bench(folder, known, unknown)
    found = section(folder)
    titles = [title.partition(" ")[0] for title, _, _ in plots if "onnxruntime" in title]
    assert titles == ["Roofline", "Operations"]
    assert [row[1] for row in floors(found, "onnxruntime")] == ["fp32"]


def test_an_artifact_for_a_cpu_has_a_roof_once_it_was_benched(folder: Path) -> None:
    rewritten(folder, lambda manifest: manifest.update(target="onnxruntime-cpu"))
    assert "no roof is drawn yet" in told(section(folder))
    bench_here(folder)
    assert "no roof is drawn yet" not in told(section(folder))


def test_a_gpu_of_no_name_has_no_roof(folder: Path) -> None:
    rewritten(folder, lambda manifest: manifest.update(target="onnxruntime-cuda"))
    bench_here(folder)
    assert "The profile of onnxruntime-cuda does not tell its bandwidth and peak" in told(section(folder))


@pytest.mark.parametrize("rate", [1e-3, 1e9])
def test_limits_far_out_are_drawn(folder: Path, rate: float) -> None:
    bench_here(folder, hot_gb_per_s=rate, fp32_gflops=1e6 / rate)
    for block in section(folder).blocks:
        if isinstance(block, Figure):
            assert "<svg" in rendered(block, "roof")


def test_limits_that_are_none_are_refused_by_file_and_key(folder: Path) -> None:
    bench_here(folder)
    file = folder / "bench-onnxruntime.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["comparisons"][0]["conditions"]["limits"]["memory_gb_per_s"] = "fast"
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BadRequest, match=r"bench-onnxruntime\.json.*limits\.memory_gb_per_s"):
        page_report([folder], "markdown")
