"""A graph as few boxes: each node by itself where there is room, else the nodes of a module together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy_attn.plan_file import PlanFile, PlannedNode

if TYPE_CHECKING:
    import onnx

FP16, FP32, MIXED, OTHER = "fp16", "fp32", "mixed", "other"

_MOST_BOXES = 48
_MOST_DETAILS = 6
_MOST_SHOWN = 240  # characters of a reason


@dataclass(frozen=True)
class Folded:
    """Nodes that one box stands for; `precision` is FP16, FP32, MIXED or, where no float is made, OTHER."""

    label: str
    precision: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class FoldedGraph:
    """Boxes in an order in which data flows, and (from, to) by their places in it."""

    boxes: tuple[Folded, ...]
    edges: tuple[tuple[int, int], ...]
    nodes: int


def folded(graph: onnx.GraphProto, plan: PlanFile | None) -> FoldedGraph:
    """At most _MOST_BOXES boxes. Consecutive nodes fold together, so that what folds cannot become a loop."""
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    runs = _runs([_path(node.name) for node in nodes])
    planned = {node.name: node for node in plan.nodes} if plan is not None else {}
    boxes = [_folded([nodes[place] for place in run], planned) for run in runs]
    box_of = {place: box for box, run in enumerate(runs, 1) for place in run}
    made = {name: box_of[place] for place, node in enumerate(nodes) for name in node.output if name}
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    made = {**dict.fromkeys(inputs, 0), **made}
    used = [(name, box_of[place]) for place, node in enumerate(nodes) for name in _reads(node)]
    used += [(value.name, len(boxes) + 1) for value in graph.output]
    edges = {(made[name], to): None for name, to in used if name in made and made[name] < to}
    outputs = [value.name for value in graph.output]
    ends = [_end("inputs", inputs), _end("outputs", outputs)]
    return FoldedGraph((ends[0], *boxes, ends[1]), tuple(edges), len(nodes))


def _end(label: str, names: Sequence[str]) -> Folded:
    return Folded(label, OTHER, tuple(map(_short, names[:_MOST_DETAILS])) or ("none",))


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node reads, also inside the graphs of an If or a Loop."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for child in inner.node:
                yield from _reads(child)


def _path(name: str) -> tuple[str, ...]:
    """`('gate', 'pool')` of /gate/pool/ReduceMean."""
    return tuple(name.strip("/").split("/")[:-1])


def _runs(paths: Sequence[tuple[str, ...]]) -> list[list[int]]:
    """Places that fold together: none, then whole modules from the innermost out, then any neighbours."""
    if len(paths) <= _MOST_BOXES:
        return [[place] for place in range(len(paths))]
    for depth in range(max(map(len, paths)), 0, -1):
        runs = _grouped([path[:depth] or place for place, path in enumerate(paths)])
        if len(runs) <= _MOST_BOXES:
            return runs
    size = -(-len(paths) // _MOST_BOXES)
    return _grouped([place // size for place in range(len(paths))])


def _grouped(keys: Sequence[object]) -> list[list[int]]:
    return [list(run) for _, run in itertools.groupby(range(len(keys)), keys.__getitem__)]


def _folded(nodes: Sequence[onnx.NodeProto], planned: Mapping[str, PlannedNode]) -> Folded:
    plans = [planned[node.name] for node in nodes if node.name in planned]
    kinds = {plan.precision for plan in plans}
    precision = kinds.pop() if len(kinds) == 1 else MIXED if kinds else OTHER
    if len(nodes) == 1:
        name = nodes[0].name or "without a name"
        reason = f"{plans[0].precision.upper()}: {plans[0].reason}" if plans else "makes no float"
        return Folded(nodes[0].op_type, precision, (_short(name), _short(reason)))
    half = sum(plan.precision == FP16 for plan in plans)
    whole = [plan for plan in plans if plan.precision == FP32]
    told = [_short(f"{plan.name}: FP32: {plan.reason}") for plan in whole[:_MOST_DETAILS]]
    more = [f"and {len(whole) - _MOST_DETAILS} more in FP32"] if len(whole) > _MOST_DETAILS else []
    counts = f"{len(nodes)} nodes: {half} in FP16, {len(whole)} in FP32"
    return Folded(_common(nodes), precision, (counts, *told, *more))


def _common(nodes: Sequence[onnx.NodeProto]) -> str:
    """The module that nodes share, else how many they are."""
    shared = [parts[0] for parts in zip(*(_path(node.name) for node in nodes)) if len(set(parts)) == 1]
    return "/".join(shared[-2:]) or f"{len(nodes)} nodes"


def _short(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."
