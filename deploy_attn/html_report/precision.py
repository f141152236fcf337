"""FP16 of an artifact: how far its tensors are from overflow, and the plan on the graph."""

from __future__ import annotations

import math
from collections.abc import Iterator

from deploy_attn.html_report.blocks import Block, Box, Drawing, Missing, Section, Table, Text, columns, number
from deploy_attn.html_report.folding import FoldedGraph, folded
from deploy_attn.html_report.layout import layout
from deploy_attn.html_report.plots import headroom
from deploy_attn.html_report.subjects import Subject
from deploy_attn.plan_file import PlanFile

_FP16_LARGEST = 65504.0
_MOST_DRAWN = 12  # tensors
_MOST_ROWS = 400


def precision_section(subject: Subject, anchor: str) -> Section:
    return Section("Precision", f"{anchor}-precision", tuple(_blocks(subject)))


def _blocks(subject: Subject) -> Iterator[Block]:
    plan = subject.plan
    if plan is None:
        text = "This artifact has no FP16 plan: it was exported without --fp16, so its graph is FP32 throughout."
        yield Missing(text, "deploy-attn export NAME --fp16")
    else:
        yield Text(f"{plan.count('fp16')} nodes run in FP16, {plan.count('fp32')} were kept in FP32.")
        if plan.subnormal_weights:
            yield Text(f"{plan.subnormal_weights} weights are below the smallest normal number of FP16.")
        lost = [name for name, largest in plan.tensors.items() if math.isnan(largest)]
        if lost:
            named = ", ".join(lost[:_MOST_DRAWN])
            yield Text(f"{len(lost)} tensors took values that are not finite, and stand in no plot or table: {named}.")
        tight = sorted(_headrooms(plan), key=lambda found: found[1])
        if tight:
            yield headroom(f"FP16 headroom of {subject.label}", tight[:_MOST_DRAWN])
        rows = tuple((name, number(_FP16_LARGEST / room), number(room)) for name, room in tight[:_MOST_ROWS])
        heads = columns("Tensor", numbers=("Largest magnitude", "Times below overflow"))
        yield Table(f"Headroom of {_of(len(rows), len(tight))} tensors, tightest first", heads, rows, folded=True)
    yield _drawn(subject)
    if plan is not None:
        yield _reasons(plan)


def _headrooms(plan: PlanFile) -> Iterator[tuple[str, float]]:
    """Tensors with how many times larger they might be; those that are zero or not finite have none."""
    for name, largest in plan.tensors.items():
        if largest > 0:
            yield name, _FP16_LARGEST / largest


def _drawn(subject: Subject) -> Drawing:
    from deploy_attn.export.linting.model_file import read_model

    graph = folded(read_model(subject.graph).graph, subject.plan)
    placed = layout(len(graph.boxes), graph.edges)
    boxes = tuple(
        Box(box.label, box.precision, left, top, box.details) for box, (left, top) in zip(graph.boxes, placed.places)
    )
    return Drawing(_title(graph, subject), boxes, placed.path, placed.width, placed.height)


def _title(graph: FoldedGraph, subject: Subject) -> str:
    boxes = len(graph.boxes) - 2  # without inputs and outputs
    what = "The precision plan" if subject.plan is not None else "The graph"
    return f"{what} on {graph.nodes} nodes" + (f", folded into {boxes} boxes" if boxes != graph.nodes else "")


def _reasons(plan: PlanFile) -> Table:
    """What stayed in FP32 first: there may be more nodes than a page bears."""
    nodes = sorted(plan.nodes, key=lambda node: node.precision != "fp32")[:_MOST_ROWS]
    rows = tuple((node.name, node.op_type, node.precision.upper(), node.reason) for node in nodes)
    caption = f"Why, for {_of(len(rows), len(plan.nodes))} nodes, FP32 first"
    return Table(caption, columns("Node", "Operator", "Precision", "Reason"), rows, folded=True)


def _of(shown: int, count: int) -> str:
    return f"all {count}" if shown == count else f"{shown} of {count}"
