"""Graphs as few boxes: what folds together, what a box says, and that data still flows one way."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from deploy_attn.html_report.folding import FoldedGraph, folded
from deploy_attn.plan_file import PlanFile, PlannedNode


def graph_of(names: list[str]) -> onnx.GraphProto:
    """A chain of Relus by these names, whose last node also reads the input."""
    nodes = [
        helper.make_node("Relu", [f"t{place}"], [f"t{place + 1}"], name=name) for place, name in enumerate(names[:-1])
    ]
    nodes.append(helper.make_node("Add", [f"t{len(names) - 1}", "t0"], [f"t{len(names)}"], name=names[-1]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("t0", f"t{len(names)}")]
    return helper.make_graph(nodes, "g", ends[:1], ends[1:])


def planned(names: list[str], precision: str = "fp16") -> PlanFile:
    nodes = tuple(PlannedNode(name, "Relu", precision, f"because of {name}", 1.0) for name in names)
    return PlanFile(nodes, {}, 0)


def inner(found: FoldedGraph) -> list[str]:
    return [box.label for box in found.boxes[1:-1]]


def test_a_small_graph_has_a_box_for_each_node_with_its_reason() -> None:
    names = ["/a/Relu", "/b/Relu", "/Add"]
    found = folded(graph_of(names), planned(names))
    assert inner(found) == ["Relu", "Relu", "Add"]
    assert found.boxes[1].details == ("/a/Relu", "FP16: because of /a/Relu")
    assert [box.label for box in (found.boxes[0], found.boxes[-1])] == ["inputs", "outputs"]
    assert set(found.edges) == {(0, 1), (1, 2), (2, 3), (0, 3), (3, 4)}


def test_without_a_plan_no_node_has_a_precision() -> None:
    found = folded(graph_of(["a", "b"]), None)
    assert {box.precision for box in found.boxes} == {"other"}


def test_a_large_graph_folds_by_module() -> None:
    names = [
        f"/stage{stage}/block{block}/Relu_{place}" for stage in range(3) for block in range(5) for place in range(9)
    ]
    found = folded(graph_of(names), planned(names))
    assert inner(found) == [f"stage{stage}/block{block}" for stage in range(3) for block in range(5)]
    assert found.boxes[1].details == ("9 nodes: 9 in FP16, 0 in FP32",)
    assert found.nodes == 135


def test_a_box_of_both_precisions_names_what_stayed_in_fp32() -> None:
    names = [f"/m{place // 10}/Relu_{place}" for place in range(60)]
    plan = PlanFile((*planned(names[1:]).nodes, *planned(names[:1], "fp32").nodes), {}, 0)
    found = folded(graph_of(names), plan).boxes[1]
    assert found.precision == "mixed"
    assert found.details == ("10 nodes: 9 in FP16, 1 in FP32", "/m0/Relu_0: FP32: because of /m0/Relu_0")


@pytest.mark.parametrize(
    "names",
    [
        [f"Relu_{place}" for place in range(1000)],
        [""] * 300,
        [f"/m{place % 2}/Relu_{place}" for place in range(500)],
        ["/" * 50 for _ in range(100)],
        [f"/m/Relu_{place}" for place in range(49)],
    ],
    ids=["no modules", "no names", "modules in turn", "slashes", "one module"],
)
def test_whatever_the_names_the_boxes_are_few_and_data_flows_one_way(names: list[str]) -> None:
    found = folded(graph_of(names), None)
    assert len(found.boxes) <= 50
    assert all(0 <= start < end < len(found.boxes) for start, end in found.edges)
    assert len(set(found.edges)) == len(found.edges)


def test_a_node_that_is_read_inside_a_branch_is_joined_to_it() -> None:
    branch = helper.make_graph(
        [helper.make_node("Neg", ["t1"], ["inside"])], "branch", [], [helper.make_tensor_value_info("inside", 1, [1])]
    )
    nodes = [
        helper.make_node("Relu", ["t0"], ["t1"], name="first"),
        helper.make_node("If", ["condition"], ["t2"], name="second", then_branch=branch, else_branch=branch),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("t0", "t2")]
    found = folded(helper.make_graph(nodes, "g", values[:1], values[1:]), None)
    assert (1, 2) in found.edges
