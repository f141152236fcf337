"""Boxes of any graph lie apart, and every line leads down."""

from __future__ import annotations

import itertools
import re
import time

from hypothesis import given
from hypothesis import strategies as st

from deploy_attn.html_report.layout import BOX_HEIGHT, BOX_WIDTH, layout


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, tuple[tuple[int, int], ...]]:
    count = draw(st.integers(1, 16))
    possible = list(itertools.combinations(range(count), 2))
    return count, tuple(draw(st.lists(st.sampled_from(possible), unique=True))) if possible else ()


@given(graphs())
def test_boxes_lie_apart_inside_the_drawing_and_below_what_they_read(
    graph: tuple[int, tuple[tuple[int, int], ...]],
) -> None:
    count, edges = graph
    found = layout(count, edges)
    assert len(found.places) == count
    for left, top in found.places:
        assert 0 <= left <= found.width - BOX_WIDTH
        assert 0 <= top <= found.height - BOX_HEIGHT
    for (left, top), (other_left, other_top) in itertools.combinations(found.places, 2):
        assert top != other_top or abs(left - other_left) >= BOX_WIDTH
    for start, end in edges:
        assert found.places[end][1] >= found.places[start][1] + BOX_HEIGHT
    assert found.path.count("M") == len(edges)


def test_a_chain_is_a_straight_column() -> None:
    found = layout(5, [(0, 1), (1, 2), (2, 3), (3, 4)])
    assert len({left for left, _ in found.places}) == 1


def test_a_line_past_a_box_leaves_it_room() -> None:
    found = layout(3, [(0, 1), (1, 2), (0, 2)])
    passed = found.path.split("M")[3]
    (_, middle) = re.findall(r"V([\d.]+)", passed)[0], re.findall(r"([\d.]+) [\d.]+V", passed)[0]
    left = found.places[1][0]
    assert not left <= float(middle) <= left + BOX_WIDTH


def test_as_many_lines_as_boxes_can_have_are_laid_out_in_time() -> None:
    began = time.perf_counter()
    layout(50, list(itertools.combinations(range(50), 2)))
    assert time.perf_counter() - began < 5
