"""Names of points that lie close together can be read."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet
from matplotlib.transforms import Bbox

from deploy_attn.html_report.blocks import Figure
from deploy_attn.html_report.plots import Point, Work, accuracy_against_latency, roofline

CLUSTERS = {
    "two beside each other": [("1", "fp32", 0.10), ("2", "fp32", 0.101)],
    "three in one place": [("1", "fp32", 0.1), ("2", "fp32", 0.1), ("3", "fp32", 0.1)],
    "both precisions of two": [("1", "fp32", 0.1), ("1", "fp16", 0.1), ("2", "fp32", 0.1), ("2", "fp16", 0.1)],
    "names of words": [("shuffle", "fp32", 0.1), ("triplet", "fp32", 0.11)],
}


def names(figure: Figure) -> list[tuple[str, Bbox]]:
    """Each name with its box, as it is drawn."""
    sheet = Sheet(figsize=(5.0, 3.9), layout="constrained")
    canvas = FigureCanvasAgg(sheet)
    axes = sheet.add_subplot()
    figure.draw(axes)
    canvas.draw()  # type: ignore[no-untyped-call]
    return [(text.get_text(), text.get_window_extent()) for text in axes.texts]


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
def test_no_name_lies_on_another(cluster: list[tuple[str, str, float]]) -> None:
    far = [Point("far", "fp32", 10.0, 10.0, 10.0, 1e-3)]
    points = [Point(text, precision, time, time, time, 1e-6) for text, precision, time in cluster]
    found = names(accuracy_against_latency("times", [*points, *far]))
    assert sorted(text for text, _ in found) == sorted([*(text for text, _, _ in cluster), "far"])
    for (_, one), (_, other) in itertools.combinations(found, 2):
        assert not one.overlaps(other)


def test_a_name_does_not_lie_on_a_floor_without_one() -> None:
    works = [Work("a", "fp32", 2.0, 94.0, False), Work("a", "fp32", 2.0, 80.0, True), Work("b", "fp32", 2.5, 5.0, True)]
    sheet = Sheet(figsize=(5.0, 3.9), layout="constrained")
    canvas = FigureCanvasAgg(sheet)
    axes = sheet.add_subplot()
    roofline("roof", [], works).draw(axes)
    canvas.draw()  # type: ignore[no-untyped-call]
    floor = axes.transData.transform((2.0, 94.0))
    assert not any(text.get_window_extent().contains(*floor) for text in axes.texts)


def test_a_floor_is_named_only_where_nothing_was_measured() -> None:
    works = [
        Work("a", "fp32", 2.0, 90.0, False),
        Work("a", "fp32", 2.0, 10.0, True),
        Work("b", "fp32", 3.0, 80.0, False),
    ]
    assert sorted(text for text, _ in names(roofline("roof", [], works))) == ["a", "b"]
