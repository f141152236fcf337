"""Names of points in a plot, each beside its own where it covers no other point and no other name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy_attn.html_report.svg import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = 8.0  # of the letters, in points of 1/72 inch, as all lengths here
_LETTER = 0.62 * _SIZE
_MARKER = 3.5  # half of what a point takes
_FIELD = (290.0, 215.0)  # a plot without its axes

Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True)
class Named:
    """A point by its place in the plot's own values.

    Attributes:
        text: its name; empty for a point that has none, and is not covered either.
        below: where the name goes where both sides are free.
    """

    text: str
    place: tuple[float, float]
    below: bool = False


def name_points(axes: Axes, points: Sequence[Named]) -> None:
    """Names points of a plot whose axes are logarithmic and have their limits already."""
    places = [_place(axes, point.place) for point in points]
    taken: list[Box] = [(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in places]
    for point, place in zip(points, places):
        if not point.text:
            continue
        text = label(point.text)
        offset = min(_offsets(text, point.below), key=lambda one: _covered(_box(text, place, one), taken))
        taken.append(_box(text, place, offset))
        axes.annotate(
            text, point.place, xytext=offset, textcoords="offset points", ha="center", va="center", fontsize=_SIZE
        )


def _place(axes: Axes, place: tuple[float, float]) -> tuple[float, float]:
    shares = []
    for value, (low, high) in zip(place, (axes.get_xlim(), axes.get_ylim())):
        shares.append((math.log(value) - math.log(low)) / (math.log(high) - math.log(low)))
    return shares[0] * _FIELD[0], shares[1] * _FIELD[1]


def _offsets(text: str, below: bool) -> list[tuple[float, float]]:
    """Of a name's middle from its point: the preferred first, since the first of equals is taken."""
    up, aside = _MARKER + _SIZE / 2 + 1.5, _MARKER + _LETTER * len(text) / 2 + 2.0
    sides = [(0.0, -up), (0.0, up)] if below else [(0.0, up), (0.0, -up)]
    return [*sides, (aside, 0.0), (-aside, 0.0), (aside, up), (-aside, up), (aside, -up), (-aside, -up)]


def _box(text: str, place: tuple[float, float], offset: tuple[float, float]) -> Box:
    x, y = place[0] + offset[0], place[1] + offset[1]
    half = _LETTER * len(text) / 2
    return x - half, y - _SIZE / 2, x + half, y + _SIZE / 2


def _covered(box: Box, taken: Sequence[Box]) -> float:
    """The area of a name that lies on something else, or outside."""
    inside = _overlap(box, (0.0, 0.0, *_FIELD))
    outside = (box[2] - box[0]) * (box[3] - box[1]) - inside
    return round(outside + sum(_overlap(box, other) for other in taken), 6)


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
