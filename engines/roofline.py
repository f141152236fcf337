"""The least time that a graph can take on a target: bytes over bandwidth, or operations over peak, whichever is more.

Nothing runs. What comes out is a floor under every engine, not a forecast: Williams, Waterman, Patterson, "Roofline: an
insightful visual performance model", CACM 52(4), 2009.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy_attn.engines.operation_counts import VIEWS, Counts, counts_of
from deploy_attn.engines.shaped_graph import Operation, Shape, ShapedGraph, shaped_graph
from deploy_attn.engines.target import MEASURED, SCHEMA, Fact, Target, load_target
from deploy_attn.jetson.artifact import Artifact, open_artifact
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact, first_line
from deploy_attn.jetson.parity import check_manifest

BANDWIDTH = "device.bandwidth_gb_per_s"
# The highest of these that the target knows is its peak in a type: a floor must not be above what it can do.
_PEAKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fp32": ("device.peak_fp32_tflops",),
        "fp16": ("device.peak_fp16_tensor_tflops", "device.peak_fp16_tflops"),
    }
)
# Under it only operations and bytes are read off an estimate, which do not depend on the target.
NOWHERE = Target(
    name="nowhere",
    title="nowhere",
    family="cpu",
    engine="onnxruntime",
    facts=MappingProxyType(
        {key: Fact(1.0, "recalled") for key in (BANDWIDTH, *(key for kind in _PEAKS.values() for key in kind))}
    ),
)
_ASSUMPTIONS = (
    "least: every input, output and weight moves once, and nothing else; all between stays on the chip",
    "node by node: each node reads its inputs and writes its outputs at the bandwidth; reshapes are free",
    "a multiply-add is 2 operations, a transcendental function 1; convolutions by definition: Winograd's take fewer",
    "operations in FP16 and in FP32 take turns",
)
_OF_A_PROFILE = (
    "what a cache still holds of the call before does not move: where a map fits into it, times may be below the floor",
    "peaks are without TF32 and sparsity; FP16 has the higher of the cores' and the tensor cores'",
    "launches, clocks below the highest, and what the host does are left out",
)
_OF_THIS_MACHINE = (
    "bandwidth and peaks are the most that several kernels reached here on the same number of threads",
    "what starts an operator and shares it among threads is left out",
)


@dataclass(frozen=True)
class Traffic:
    """Bytes that must move: inputs, outputs and weights once each, and all that nodes read and write one by one."""

    inputs: int
    outputs: int
    weights: int
    node_by_node: int

    @property
    def least(self) -> int:
        return self.inputs + self.outputs + self.weights


@dataclass(frozen=True)
class Work:
    """What a graph does for one input.

    Attributes:
        operations: by type, `fp32` and `fp16`.
        nodes: bytes and operations by type of each node that is no view.
        uncounted: operators whose operations are not known here, with how many nodes; their bytes are counted.
    """

    traffic: Traffic
    operations: Mapping[str, Counts]
    nodes: tuple[tuple[int, Mapping[str, Counts]], ...]
    uncounted: Mapping[str, int]


@dataclass(frozen=True)
class Estimate:
    """The floor under a graph's time on a target, in milliseconds, and what it was made of.

    Attributes:
        shapes: of the inputs: those of the artifact's first parity case.
        memory_ms: the least bytes over the bandwidth.
        compute_ms: all operations over the peaks of their types.
        node_by_node_ms: if nothing were fused: the sum of each node's own floor.
        facts: what of the target was used.
    """

    target: str
    title: str
    graph: str
    precision: str
    shapes: Mapping[str, Shape]
    work: Work
    memory_ms: float
    compute_ms: float
    node_by_node_ms: float
    facts: Mapping[str, Fact]

    @property
    def measured_here(self) -> bool:
        """Whether bandwidth and peaks are not of a profile, but were measured on the machine."""
        return self.facts[BANDWIDTH].mark == MEASURED

    @property
    def assumptions(self) -> tuple[str, ...]:
        return (*_ASSUMPTIONS, *(_OF_THIS_MACHINE if self.measured_here else _OF_A_PROFILE))

    def on(self, target: Target) -> Estimate:
        """The floor under the same graph on another target.

        Raises:
            BadRequest: that target does not say what is needed.
        """
        return _estimate(target, self.graph, self.precision, self.shapes, self.work)

    @property
    def floor_ms(self) -> float:
        return max(self.memory_ms, self.compute_ms)

    @property
    def binds(self) -> str:
        return "memory" if self.memory_ms >= self.compute_ms else "compute"

    @property
    def intensity(self) -> float:
        """Operations for each of the least bytes."""
        return sum(counts.operations for counts in self.work.operations.values()) / max(self.work.traffic.least, 1)

    def as_dict(self) -> dict[str, Any]:
        traffic = self.work.traffic
        return {
            "estimate": True,
            "target": self.target,
            "graph": self.graph,
            "precision": self.precision,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "floor_ms": self.floor_ms,
            "binds": self.binds,
            "memory_ms": self.memory_ms,
            "compute_ms": self.compute_ms,
            "node_by_node_ms": self.node_by_node_ms,
            "bytes": {
                "inputs": traffic.inputs,
                "outputs": traffic.outputs,
                "weights": traffic.weights,
                "least": traffic.least,
                "node_by_node": traffic.node_by_node,
            },
            "operations": {
                name: {**counts._asdict(), "operations": counts.operations}
                for name, counts in self.work.operations.items()
            },
            "intensity": self.intensity,
            "uncounted": dict(self.work.uncounted),
            "facts": {
                key: {"value": fact.value, "mark": fact.mark, "note": fact.note} for key, fact in self.facts.items()
            },
            "assumptions": list(self.assumptions),
        }


def estimate(folder: str | Path, target: str | Target, precision: str) -> Estimate:
    """The floor under one graph of an artifact on a target, at the shape of its first parity case.

    Args:
        target: a profile, its name, or the path of one's own.
        precision: `fp32` or `fp16`; the artifact must have a graph of it.

    Raises:
        BadRequest: no artifact, no such target or precision, or the target does not say what is needed.
        DamagedArtifact: a file differs from the manifest.
        DeployAttnError: the graph's shapes cannot be told without running it.
    """
    import onnx

    artifact = open_artifact(str(folder))
    check_manifest(artifact)
    profile = load_target(target) if isinstance(target, str) else target
    graph = _graph_file(artifact, precision)
    shapes = _example(artifact)
    try:
        model = onnx.load(artifact.file(graph))
    except Exception as error:  # protobuf raises many types
        raise DamagedArtifact(f"{graph} of {folder} cannot be read as a graph: {first_line(error)}.") from error
    shaped = shaped_graph(model, shapes)
    if not shaped.operations or not set(shaped.inputs) <= set(shapes):
        raise DamagedArtifact(
            f"{graph} of {folder} takes {', '.join(shaped.inputs) or 'no input'}, and its parity cases have "
            f"{', '.join(shapes)}. Export it again."
        )
    return _estimate(profile, graph, precision, shapes, work_of(shaped))


def _estimate(target: Target, graph: str, precision: str, shapes: Mapping[str, Shape], work: Work) -> Estimate:
    """The floor under so much work on a target."""
    facts = _needed(target, [name for name, counts in work.operations.items() if counts.operations])
    bandwidth = float(facts[BANDWIDTH].value) * 1e9
    return Estimate(
        target=target.name,
        title=target.title,
        graph=graph,
        precision=precision,
        shapes=shapes,
        work=work,
        memory_ms=1e3 * work.traffic.least / bandwidth,
        compute_ms=1e3 * _seconds(work.operations, facts),
        node_by_node_ms=1e3 * sum(max(size / bandwidth, _seconds(counts, facts)) for size, counts in work.nodes),
        facts=facts,
    )


def work_of(graph: ShapedGraph) -> Work:
    """Bytes and operations of a graph at the extents that it was shaped for."""
    tensors = graph.tensors
    totals: dict[str, Counts] = {"fp32": Counts(), "fp16": Counts()}
    nodes: list[tuple[int, Mapping[str, Counts]]] = []
    uncounted: Counter[str] = Counter()
    for operation in graph.operations:
        if operation.node.op_type in VIEWS:
            continue
        counts = counts_of(operation, tensors)
        if counts is None:
            uncounted[operation.node.op_type] += 1
            counts = Counts()
        kind = _type_of(operation, graph)
        totals[kind] = totals[kind].plus(counts)
        nodes.append((_bytes({*operation.inputs, *operation.outputs}, graph), {kind: counts}))
    traffic = Traffic(
        inputs=_bytes(graph.inputs, graph),
        outputs=_bytes(graph.outputs, graph),
        weights=_bytes(graph.constants, graph),
        node_by_node=sum(size for size, _ in nodes),
    )
    return Work(traffic, totals, tuple(nodes), dict(uncounted))


def _bytes(names: Iterable[str], graph: ShapedGraph) -> int:
    return sum(graph.tensors[name].bytes for name in names)


def _type_of(operation: Operation, graph: ShapedGraph) -> str:
    """What a node computes in; whatever is not FP16 is counted at the peak of FP32."""
    used = (*operation.inputs, *operation.outputs)
    return "fp16" if any(graph.tensors[name].dtype == "float16" for name in used) else "fp32"


def _graph_file(artifact: Artifact, precision: str) -> str:
    graphs = {str(one["precision"]): str(one["file"]) for one in artifact.manifest["graphs"]}
    if precision not in graphs:
        raise BadRequest(
            f"{artifact.path} has no graph in {precision}, only in {' and '.join(graphs) or 'none'}. "
            "Export it with --fp16 for one in FP16."
        )
    return graphs[precision]


def _example(artifact: Artifact) -> dict[str, Shape]:
    """The extents of the inputs in the first parity case."""
    return {name: tuple(int(extent) for extent in array.shape) for name, array in artifact.cases()[0].inputs.items()}


def _needed(target: Target, types: Sequence[str]) -> dict[str, Fact]:
    """The facts that an estimate uses.

    Raises:
        BadRequest: the target lacks one of them.
    """
    wanted = {BANDWIDTH: (BANDWIDTH,), **{name: _PEAKS[name] for name in types}}
    missing = [keys for keys in wanted.values() if not any(key in target.facts for key in keys)]
    if missing:
        told = "; ".join(" or ".join(f"{key} ({_meaning(key)})" for key in keys) for keys in missing)
        any_gpu = target.family == "gpu" and target.engine == "onnxruntime"
        own = (
            "The floor is a GPU's, whatever runs on it: name the GPU, as --target h200, or write"
            if any_gpu
            else "Write"
        )
        raise BadRequest(
            f"An estimate for {target.name} needs what its profile does not say: {told}. {own} a profile of your own, "
            f"board.toml, with a table [device] in which each of them stands as "
            f'`{missing[0][0].split(".")[1]} = {{ value = 25.6, mark = "recalled" }}`, and give its path: '
            "--target ./board.toml."
        )
    return {key: target.facts[key] for keys in wanted.values() for key in keys if key in target.facts}


def _meaning(key: str) -> str:
    table, name = key.split(".")
    return SCHEMA[table][name].meaning


def _seconds(operations: Mapping[str, Counts], facts: Mapping[str, Fact]) -> float:
    """The time of these operations at the peaks of their types."""
    seconds = 0.0
    for name, counts in operations.items():
        if counts.operations:
            peak = max(float(facts[key].value) for key in _PEAKS[name] if key in facts)
            seconds += counts.operations / (peak * 1e12)
    return seconds
