"""The precision plan in TensorRT: set layer by layer on a weakly typed network, and held against the built engine.

The ONNX parser names a layer after its node; what a node needs beside that
layer gets the name with a number behind it, or a name of its own
(`(Unnamed Layer* 5) [Shuffle]`). From 8.6 on a layer's metadata names the node
too. The builder then fuses, and writes fused names: `a + b`, `PWN(a, b)`,
`{ForeignNode[a...b]}`, `Reformatting CopyNode for Input Tensor 0 to a`.
"""

import re
from typing import Any, List, Mapping, NamedTuple, Optional, Pattern, Sequence, Tuple

from .engine_layers import FLOAT, HALF, UNSHOWN, EngineLayer, nodes_in_metadata
from .errors import BadRequest

_MOST_NAMES = 5
_NUMBERED = re.compile(r"(.+)_\d+")
_BEFORE, _BEHIND = r"(?:(?<![^\s(\[{,|+])|(?<=\.\.\.))", r"(?:_\d+)?(?=$|[\s)\]},|+]|\.\.\.)"

# Layers of the network that compute no floats, or that say themselves what they cast to.
_UNTYPED = frozenset(("CONSTANT", "SHAPE", "CAST", "ASSERTION", "CONDITION", "TRIP_LIMIT", "QUANTIZE", "DEQUANTIZE"))
# Layers of an engine that only copy, whatever they are named after; they change types by their nature.
_COPIES = frozenset(("reformat", "noop", "constant", "cast", "signal", "wait", "shape_call", "shapehosttodevice"))
_COPY_NAMES = re.compile(r"Reformatting CopyNode |.* copy$")


class Assignment(NamedTuple):
    """What `assign` did: how many layers of each precision, and the planned nodes without a layer of their own."""

    half: int
    single: int
    without_layer: Tuple[str, ...]


class NodeFinder:
    """Finds the planned nodes that a layer stands for, by its metadata or by its name."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self._nodes = frozenset(nodes)
        self._pattern: Optional[Pattern[str]] = None
        if nodes:
            longest_first = sorted(self._nodes, key=lambda name: (-len(name), name))
            names = "|".join(re.escape(name) for name in longest_first)
            self._pattern = re.compile("{}({}){}".format(_BEFORE, names, _BEHIND))

    def of_layer(self, name: str, metadata: Sequence[str] = ()) -> Tuple[str, ...]:
        """The nodes of one layer of a network or an engine; of a ForeignNode only its ends are known."""
        known = tuple(node for node in metadata if node in self._nodes)
        if known:
            return known
        if name in self._nodes:
            return (name,)
        numbered = self.of_number(name)
        return numbered or (tuple(self._pattern.findall(name)) if self._pattern else ())

    def of_number(self, name: str) -> Tuple[str, ...]:
        """The node whose name this is with a number behind it."""
        match = _NUMBERED.fullmatch(name)
        return (match.group(1),) if match and match.group(1) in self._nodes else ()


def assign(network: Any, plan: Mapping[str, str], trt: Any) -> Assignment:
    """Sets the plan on a weakly typed network's layers.

    Each layer that computes floats gets a precision, and each of its float
    outputs that type; network outputs stay as they are. A layer that belongs to
    no planned node is FP16 only if the layers before and after it are.

    Args:
        network: parsed from the FP32 graph; its layers are changed.
        plan: `fp16` or `fp32` by ONNX node name.

    Raises:
        BadRequest: the plan is empty, or no layer has a name of the plan.
    """
    if not plan:
        raise BadRequest(
            "FP16 was asked of a weakly typed network without a plan: nothing says which nodes may run in half "
            "precision. Export the model with --fp16, which writes precision_plan.json."
        )
    finder = NodeFinder(list(plan))
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    owners = _owners(layers, finder)
    found = {node for nodes in owners for node in nodes}
    if not found:
        raise BadRequest(
            "The plan names {} nodes, and none of the network's {} layers bears the name of one: the plan is of "
            "another graph. Export the model again.".format(len(plan), len(layers))
        )
    counts = {"fp16": 0, "fp32": 0}
    for layer, precision in zip(layers, _precisions(owners, plan)):
        if _set_precision(layer, precision, trt):
            counts[precision] += 1
    return Assignment(counts["fp16"], counts["fp32"], tuple(sorted(set(plan) - found)))


def precision_problems(layers: Sequence[EngineLayer], plan: Mapping[str, str], weak: bool) -> List[str]:
    """Where an engine departs from its plan in a way that must not pass.

    Args:
        layers: of the engine.
        plan: `fp16` or `fp32` by ONNX node name.
        weak: the network was weakly typed; a strongly typed one cannot round
            where its graph does not.
    """
    finder = NodeFinder(list(plan))
    problems = _silently_single(layers, plan, finder, weak)
    if not weak:
        return problems
    for layer in layers:
        planned = {plan[node] for node in finder.of_layer(layer.name, layer.nodes)}
        if planned != {"fp32"} or _is_copy(layer) or HALF not in layer.outputs + layer.weights:
            continue
        kind = "makes FP16 outputs" if HALF in layer.outputs else "has FP16 weights"
        problems.append("Layer {!r} {}, and the plan keeps all of its nodes in FP32.".format(layer.name, kind))
    return problems


def precision_notes(layers: Sequence[EngineLayer], plan: Mapping[str, str], weak: bool) -> List[str]:
    """What the comparison could not see, or what is worth knowing and no failure."""
    finder = NodeFinder(list(plan))
    owned = [(layer, finder.of_layer(layer.name, layer.nodes)) for layer in layers]
    hidden = [layer for layer in layers if _is_foreign(layer) and not layer.nodes]
    notes = []
    if hidden:
        notes.append(
            "Of what {} ForeignNodes of the engine compute inside, only the types of their inputs and outputs are "
            "known.".format(len(hidden))
        )
    lost = sorted(set(plan) - {node for _, nodes in owned for node in nodes})
    if lost:
        notes.append("No layer accounts for these nodes, which were folded or fused away: {}.".format(_some(lost)))
    return notes + (_weak_notes(owned, plan) if weak else [])


def _weak_notes(owned: Sequence[Tuple[EngineLayer, Sequence[str]]], plan: Mapping[str, str]) -> List[str]:
    notes = []
    mixed = [layer.name for layer, nodes in owned if len({plan[node] for node in nodes}) > 1]
    if mixed:
        notes.append("Fused layers hold nodes planned in FP16 and in FP32: {}.".format(_some(mixed)))
    single = [
        node
        for layer, nodes in owned
        for node in nodes
        if {plan[each] for each in nodes} == {"fp16"} and not _is_copy(layer) and set(layer.types()) == {FLOAT}
    ]
    if single:
        notes.append("Planned in FP16, computed in FP32: {}.".format(_some(single)))
    return notes


def _owners(layers: Sequence[Any], finder: NodeFinder) -> List[Tuple[str, ...]]:
    """The nodes of each layer of a network.

    `a_1` may be the first layer of node `a_1` or the second of node `a`. Where
    no metadata tells and it stands right behind a layer of `a`, it counts for both.
    """
    owners: List[Tuple[str, ...]] = []
    last: Tuple[str, ...] = ()
    for layer in layers:
        metadata = nodes_in_metadata(getattr(layer, "metadata", ""))
        nodes = finder.of_layer(layer.name, metadata)
        if not metadata and set(finder.of_number(layer.name)).intersection(last):
            nodes = tuple(sorted(set(nodes).union(finder.of_number(layer.name))))
        owners.append(nodes)
        last = nodes or last
    return owners


def _precisions(owners: Sequence[Sequence[str]], plan: Mapping[str, str]) -> List[str]:
    """The precision of each layer, in network order."""
    own = [_of_nodes(nodes, plan) for nodes in owners]
    before, behind = _last_known(own), _last_known(own[::-1])[::-1]
    return [mine or ("fp16" if {left, right} == {"fp16"} else "fp32") for mine, left, right in zip(own, before, behind)]


def _of_nodes(nodes: Sequence[str], plan: Mapping[str, str]) -> str:
    if not nodes:
        return ""
    return "fp16" if all(plan[node] == "fp16" for node in nodes) else "fp32"


def _last_known(precisions: Sequence[str]) -> List[str]:
    """For each place the last precision before it; FP16 before the first, so that the other side decides."""
    known, last = [], "fp16"
    for precision in precisions:
        known.append(last)
        last = precision or last
    return known


def _set_precision(layer: Any, precision: str, trt: Any) -> bool:
    """Whether the layer computes floats, and so got the precision."""
    floats = (trt.float32, trt.float16)
    if getattr(layer.type, "name", str(layer.type)) in _UNTYPED:
        return False
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    if not any(tensor is not None and tensor.dtype in floats for tensor in inputs):
        return False
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    places = [index for index, tensor in enumerate(outputs) if tensor.dtype in floats and not tensor.is_shape_tensor]
    if not places:
        return False
    kind = trt.float16 if precision == "fp16" else trt.float32
    layer.precision = kind
    for index in places:
        if not layer.output_type_is_set(index) and not outputs[index].is_network_output:
            layer.set_output_type(index, kind)
    return True


def _silently_single(
    layers: Sequence[EngineLayer], plan: Mapping[str, str], finder: NodeFinder, weak: bool
) -> List[str]:
    half_planned = [node for node in plan if plan[node] == "fp16"]
    computing = [layer for layer in layers if not _is_copy(layer)]
    # Copies count only where nothing but moves was planned in FP16: a copy to FP16 and back computes nothing.
    at_work = [layer for layer in computing if set(finder.of_layer(layer.name, layer.nodes)).intersection(half_planned)]
    if not half_planned or any(HALF in layer.types() for layer in (computing if at_work else layers)):
        return []
    if any(UNSHOWN in layer.types() for layer in layers):
        return [
            "The plan has {} FP16 nodes, and TensorRT does not show the types of this engine's tensors: nothing "
            "proves that it is no FP32 engine.".format(len(half_planned))
        ]
    if any(_hides_half(layer, plan, finder, weak, len(computing)) for layer in computing):
        return []
    hidden = " (of its ForeignNodes only inputs and outputs are known)" if any(map(_is_foreign, layers)) else ""
    return [
        "The engine is silently FP32: the plan has {} FP16 nodes, and none of its {} layers has an FP16 "
        "tensor{}.".format(len(half_planned), len(layers), hidden)
    ]


def _hides_half(layer: EngineLayer, plan: Mapping[str, str], finder: NodeFinder, weak: bool, computing: int) -> bool:
    """Whether a layer whose own tensors are all FP32 may still compute in FP16 inside.

    A network's inputs and outputs are FP32 whatever the plan says, so a layer
    that is the whole engine shows nothing else. A fused layer of a strongly
    typed network rounds as its graph says; one of a weakly typed network has the
    Casts in its name.
    """
    if _is_foreign(layer):
        return computing == 1
    nodes = layer.nodes or finder.of_layer(layer.name)
    fused = len(nodes) > 1 and any(plan.get(node) == "fp16" for node in nodes)
    return fused and (not weak or "Cast" in layer.name)


def _is_foreign(layer: EngineLayer) -> bool:
    return "ForeignNode[" in layer.name


def _is_copy(layer: EngineLayer) -> bool:
    return layer.layer_type.lower() in _COPIES or bool(_COPY_NAMES.match(layer.name))


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (" and {} more".format(more) if more > 0 else "")
