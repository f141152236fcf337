"""precision_plan.json of an artifact, read without trusting it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy_attn.engines.json_fields import Fields, read_fields
from deploy_attn.jetson.parity import PRECISIONS

PLAN = "precision_plan.json"

_REMEDY = "A plan is what `deploy-attn export --fp16` writes; export again."


@dataclass(frozen=True)
class PlannedNode:
    """A node's precision and why; its largest magnitude over the parity inputs, NaN where that was not finite."""

    name: str
    op_type: str
    precision: str
    reason: str
    largest: float


@dataclass(frozen=True)
class PlanFile:
    """Nodes in the order of the graph, and the largest magnitude of each tensor over the parity inputs."""

    nodes: tuple[PlannedNode, ...]
    tensors: Mapping[str, float]
    subnormal_weights: int

    def count(self, precision: str) -> int:
        return sum(node.precision == precision for node in self.nodes)


def read_plan(file: Path) -> PlanFile:
    """Reads a plan.

    Raises:
        BadRequest: not one; the message names file and key.
    """
    top = read_fields(file, _REMEDY)
    tensors = top.part("tensors")
    return PlanFile(
        nodes=tuple(_node(part) for part in top.parts("nodes")),
        tensors={name: _magnitude(tensors.part(name)) for name in tensors.values},
        subnormal_weights=top.count("weights_below_fp16_normal"),
    )


def _node(part: Fields) -> PlannedNode:
    precision = part.text("precision")
    if precision not in PRECISIONS:
        part.refuse("precision", f"is {{}}, and not {' or '.join(PRECISIONS)}")
    return PlannedNode(part.text("node"), part.text("op_type"), precision, part.text("reason"), _magnitude(part))


def _magnitude(part: Fields) -> float:
    value = part.number("largest")
    return part.refuse("largest", "is {}, and no magnitude") if value < 0 else value
