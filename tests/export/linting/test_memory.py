"""Holds the memory estimate: what is live at once, and where it exceeds the board."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest

from deploy_attn.engines.target import Fact, Target, Value, load_target
from deploy_attn.export.linting.graph import LintGraph
from deploy_attn.export.linting.memory import Memory, estimate, memory_rule
from tests.export.linting.graphs import model_of, node, one

NANO = load_target("jetson-nano")
MAP = (1, 4, 8, 8)
BYTES = 4 * 4 * 8 * 8


def _board(memory_gib: float, capability: str = "8.7", workspace_mib: int = 0) -> Target:
    changed: dict[str, Value] = {
        "device.memory_gib": memory_gib,
        "device.compute_capability": capability,
        "runtime.workspace_mib": workspace_mib,
    }
    facts = {**NANO.facts, **{key: Fact(value, "derived") for key, value in changed.items()}}
    return replace(NANO, name="board", facts=MappingProxyType(facts))


def _estimate(model: onnx.ModelProto, half_planned: frozenset[str] | None = None, target: Target = NANO) -> Memory:
    memory = estimate(LintGraph(model, half_planned), target)
    assert memory is not None
    return memory


def _chain(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    return model_of(list(nodes), {"x": MAP}, {"y": (1, None)}, constants)


@pytest.mark.parametrize(
    ("model", "tensors"),
    [
        pytest.param(_chain(node("Relu", "x", "y")), 2, id="input and output"),
        pytest.param(_chain(node("Relu", "x", "a"), node("Relu", "a", "y")), 3, id="one between"),
        pytest.param(
            _chain(node("Relu", "x", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")), 4, id="two between"
        ),
        pytest.param(
            _chain(*(node("Relu", a, b) for a, b in ("xa", "ab", "bc", "cd", "dy"))), 4, id="a chain reuses memory"
        ),
        pytest.param(
            _chain(node("Relu", "x", "a"), *(node("Relu", a, b) for a, b in ("ab", "bc")), node("Add", "a c", "y")),
            5,
            id="a residual stays alive",
        ),
        pytest.param(
            _chain(node("Relu", "x", "a"), node("Identity", "a", "b"), node("Relu", "b", "y")),
            3,
            id="identities take none",
        ),
    ],
)
def test_what_is_live_at_once(model: onnx.ModelProto, tensors: int) -> None:
    memory = _estimate(model)
    assert memory.activations_bytes == tensors * BYTES
    assert (memory.half_activations_bytes, memory.weights_bytes) == (None, 0)


def test_a_reshape_takes_no_memory_and_keeps_what_it_reads() -> None:
    model = _chain(
        node("Relu", "x", "a"), node("Reshape", "a s", "b"), node("Relu", "x", "c"), node("Relu", "b", "d"),
        node("Reshape", "d t", "e"), node("Add", "e c", "y"), s=[1, 256], t=[1, 4, 8, 8],
    )  # fmt: skip
    assert _estimate(model).activations_bytes == 5 * BYTES


def test_a_plan_halves_what_it_makes_in_fp16() -> None:
    model = _chain(node("Relu", "x", "a", "first"), node("Relu", "a", "y", "second"))
    memory = _estimate(model, frozenset({"first"}))
    assert memory.activations_bytes == 3 * BYTES
    assert memory.half_activations_bytes == 2 * BYTES + BYTES // 2


def test_weights_are_counted_without_being_read() -> None:
    model = _chain(node("Add", "x w", "y"), w=np.ones((4, 8, 8), np.float32), i=np.ones(3, np.int64))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    assert _estimate(model).weights_bytes == 4 * 4 * 64 + 8 * 3


def test_the_largest_tensor_is_named() -> None:
    model = one("ConvTranspose", MAP, {"w": np.ones((4, 9, 8, 8), np.float32)})
    memory = _estimate(model)
    assert (memory.largest_tensor, memory.largest_tensor_bytes) == ("y", 4 * 9 * 15 * 15)


@pytest.mark.parametrize(
    ("shape", "size", "note"),
    [
        ((1, 4, 8, 8), BYTES, "at the shapes of the file"),
        (("n", 4, 8, 8), BYTES, "open extents counted as 1"),
        (("n", 4, "h", "w"), 16, "open extents counted as 1"),
    ],
)
def test_open_extents_count_as_1(shape: tuple[int | str, ...], size: int, note: str) -> None:
    memory = _estimate(one("Relu", shape))
    assert (memory.activations_bytes, memory.note) == (2 * size, note)


def test_tensors_of_unknown_shape_are_left_out_and_counted() -> None:
    model = model_of(
        [node("Exp", "x", "a", domain="com.example"), node("Relu", "a", "y")],
        {"x": MAP},
        {"y": (1, None)},
        domains={"com.example": 1},
    )
    assert _estimate(model).note.endswith("2 tensors of unknown shape left out")


def test_a_target_without_a_memory_has_no_estimate() -> None:
    assert estimate(LintGraph(one("Relu", MAP)), load_target("onnxruntime-cpu")) is None
    assert list(memory_rule(LintGraph(one("Relu", MAP)), load_target("onnxruntime-cpu"))) == []


def _sized(gibibytes: float) -> onnx.ModelProto:
    """A model whose input and output take so much together."""
    return one("Relu", (int(gibibytes * (1 << 30)) // 8,))


@pytest.mark.parametrize(
    ("gibibytes", "target", "effects"),
    [
        pytest.param(0.01, NANO, [], id="small on a Nano"),
        pytest.param(0.7, NANO, ["risky"], id="near a Nano's memory, with what starts up"),
        pytest.param(4.5, NANO, ["refused"], id="more than a Nano has"),
        pytest.param(0.7, _board(8), [], id="small on a larger board"),
        pytest.param(7.5, _board(8), ["risky"], id="near a larger board's memory"),
        pytest.param(8.5, _board(8), ["refused"], id="more than a larger board has"),
        pytest.param(6.0, _board(8, workspace_mib=2048), ["risky"], id="near with its workspace"),
    ],
)
def test_what_exceeds_the_board_is_refused_and_what_comes_near_is_risky(
    gibibytes: float, target: Target, effects: list[str]
) -> None:
    caught = list(memory_rule(LintGraph(_sized(gibibytes)), target))
    assert [finding.effect for finding in caught] == effects
    assert all(finding.why and finding.remedy and finding.rule == "memory" for finding in caught)


def test_start_up_figures_are_those_of_the_nano_only() -> None:
    model = one("Relu", MAP)
    assert _estimate(model).start_up_bytes == 3_100_000_000
    assert _estimate(model, target=_board(8)).start_up_bytes is None


def test_an_estimate_at_hand_is_used() -> None:
    graph = LintGraph(one("Relu", MAP))
    memory = estimate(graph, NANO)
    assert memory is not None
    large = replace(memory, weights_bytes=1 << 40)
    assert [finding.effect for finding in memory_rule(graph, NANO, large)] == ["refused"]
    assert large.as_dict()["weights_bytes"] == 1 << 40
