"""Places for the boxes of a graph: layers from the longest path, few crossings, lines that pass between boxes."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BOX_WIDTH, BOX_HEIGHT = 148.0, 38.0

_GAP_X, _GAP_Y = 14.0, 22.0
_LANE = 12.0  # a line that passes a layer
_MARGIN = 8.0
_SWEEPS = 12
_MOST_LANES = 4000  # of a hostile graph; beyond it, long lines are straight

_Lane = tuple[int, int, int]
_Item = int | _Lane  # a box, or the edge that passes a layer


@dataclass(frozen=True)
class Layout:
    """(left, top) of each box and an SVG path for all lines, in pixels."""

    places: tuple[tuple[float, float], ...]
    path: str
    width: float
    height: float


def layout(count: int, edges: Sequence[tuple[int, int]]) -> Layout:
    """Places `count` boxes; each edge leads from a lower number to a higher one."""
    layer_of = _layers(count, edges)
    chains = [_chain(edge, layer_of) for edge in edges]
    if sum(map(len, chains)) > _MOST_LANES:
        chains = [list(edge) for edge in edges]
    layers: list[list[_Item]] = [[] for _ in range(max(layer_of, default=0) + 1)]
    for box, layer in enumerate(layer_of):
        layers[layer].append(box)
    for (start, _), chain in zip(edges, chains):
        for step, lane in enumerate(chain[1:-1], 1):
            layers[layer_of[start] + step].append(lane)
    ups, downs = _neighbours(chains)
    centres = _settled(layers, ups, downs)
    shift = _MARGIN - min(centres[item] - _width(item) / 2 for item in centres)
    centres = {item: centre + shift for item, centre in centres.items()}
    tops = [_MARGIN + layer * (BOX_HEIGHT + _GAP_Y) for layer in range(len(layers))]
    level = {item: top for items, top in zip(layers, tops) for item in items}
    return Layout(
        places=tuple((round(centres[box] - BOX_WIDTH / 2, 1), level[box]) for box in range(count)),
        path=" ".join(_line([(centres[item], level[item]) for item in chain]) for chain in chains),
        width=round(max(centres[item] + _width(item) / 2 for item in centres) + _MARGIN, 1),
        height=tops[-1] + BOX_HEIGHT + _MARGIN,
    )


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The length of the longest way to each box."""
    found = [0] * count
    for start, end in sorted(edges):
        found[end] = max(found[end], found[start] + 1)
    return found


def _chain(edge: tuple[int, int], layer_of: Sequence[int]) -> list[_Item]:
    """An edge with what it passes: (from, to, layer) on each layer between its ends."""
    start, end = edge
    return [start, *((start, end, layer) for layer in range(layer_of[start] + 1, layer_of[end])), end]


def _neighbours(chains: Sequence[Sequence[_Item]]) -> tuple[dict[_Item, list[_Item]], dict[_Item, list[_Item]]]:
    ups: dict[_Item, list[_Item]] = {}
    downs: dict[_Item, list[_Item]] = {}
    for chain in chains:
        for above, below in itertools.pairwise(chain):
            ups.setdefault(below, []).append(above)
            downs.setdefault(above, []).append(below)
    return ups, downs


def _settled(
    layers: list[list[_Item]], ups: Mapping[_Item, Sequence[_Item]], downs: Mapping[_Item, Sequence[_Item]]
) -> dict[_Item, float]:
    """Centres: sweeps down and up, in which each item moves to the middle of its neighbours, keeping distance."""
    centres: dict[_Item, float] = {}
    for items in layers:
        centres.update(zip(items, _spread([0.0] * len(items), items)))
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for items in layers if down else reversed(layers):
            near = ups if down else downs
            wanted = {
                item: statistics.fmean(centres[one] for one in near[item]) if item in near else centres[item]
                for item in items
            }
            items.sort(key=wanted.__getitem__)
            centres.update(zip(items, _spread([wanted[item] for item in items], items)))
    return centres


def _spread(wanted: Sequence[float], items: Sequence[_Item]) -> list[float]:
    """The centres closest to the wanted ones, in squares, of items in this order that do not overlap.

    Less the room that the items before take, centres only have to rise: neighbours that would fall are pooled.
    """
    room, taken = [], 0.0
    for before, item in zip((None, *items), items):
        taken += 0.0 if before is None else (_width(before) + _width(item)) / 2 + _GAP_X
        room.append(taken)
    pools: list[list[float]] = []
    for value in (want - offset for want, offset in zip(wanted, room)):
        pools.append([value])
        while len(pools) > 1 and statistics.fmean(pools[-2]) > statistics.fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    risen = [statistics.fmean(pool) for pool in pools for _ in pool]
    return [value + offset for value, offset in zip(risen, room)]


def _width(item: _Item) -> float:
    return BOX_WIDTH if isinstance(item, int) else _LANE


def _line(points: Sequence[tuple[float, float]]) -> str:
    """From the foot of the first box to the head of the last one, straight down beside what it passes."""
    (x, top), *rest = points
    y = top + BOX_HEIGHT
    path = f"M{x:.1f} {y:.1f}"
    for place, (next_x, next_y) in enumerate(rest, 1):
        bend = (next_y - y) / 2
        path += f"C{x:.1f} {y + bend:.1f} {next_x:.1f} {next_y - bend:.1f} {next_x:.1f} {next_y:.1f}"
        x, y = next_x, next_y
        if place < len(rest):
            y += BOX_HEIGHT
            path += f"V{y:.1f}"
    return path
