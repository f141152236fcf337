"""INT64 that a parser narrows to INT32, and Mod of what is no integer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label, nodes_of, subgraphs
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

_NATIVE_INT64 = (9, 0)
_INT32 = 1 << 31
# Slice takes an end beyond the axis for its end, and a step beyond it for one element: the largest
# INT32 says the same. Loop counts trips that its condition ends.
_SENTINELS = frozenset((("Slice", 1), ("Slice", 2), ("Slice", 4), ("Loop", 0)))
# A least bound below every INT32 and a most bound above it bound nothing, before as after.
_BOUNDS = frozenset((("Clip", 1, False), ("Clip", 2, True)))
_CARRIERS = frozenset(("Cast", "Concat", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))

Use = tuple["onnx.NodeProto", int]


def clamped_constants(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Before 9.0 an INT64 constant beyond INT32 becomes the nearest INT32, with one warning for all."""
    if parser.version >= _NATIVE_INT64:
        return
    wide = list(_wide_constants(graph))
    if not wide:
        return
    uses: dict[str, list[Use]] = {}
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            uses.setdefault(name, []).append((node, index))
    for name, value in wide:
        for node in _readers_of_value(name, value, uses):
            yield Finding(
                "int64-clamped",
                label(node),
                node.op_type,
                "wrong result",
                f"TensorRT before 9.0 has no INT64: {value} in {name} becomes "
                f"{min(max(value, -_INT32), _INT32 - 1)}, the nearest INT32",
                "keep integers below 2^31",
            )


def wide_ports(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """INT64 inputs and outputs of the network are INT32 ones before 9.0."""
    import onnx

    if parser.version >= _NATIVE_INT64:
        return
    for kind, value in _ports(graph):
        if value.type.tensor_type.elem_type == onnx.TensorProto.INT64:
            yield Finding(
                "int64-port",
                value.name,
                "",
                "risky",
                f"TensorRT before 9.0 makes the INT64 {kind} {value.name} an INT32 one, of 4 bytes an element",
                "size buffers by the engine's types, not by the file's, and keep its values below 2^31",
            )


def remainders(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Mod with fmod = 0 is for integers."""
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
    for node in graph.named("Mod"):
        is_float = graph.view.elem_type(given(node, 0) or "") in floats
        if parser.knows(node.op_type) and is_float and not attribute(node, "fmod", 0):
            yield Finding(
                "mod-of-floats",
                label(node),
                node.op_type,
                "refused",
                "TensorRT takes Mod with fmod = 0 of integers only",
                "set fmod = 1, whose result has the sign of the dividend",
            )


def _wide_constants(graph: LintGraph) -> Iterator[tuple[str, int]]:
    """INT64 constants beyond INT32: name and the value farthest out."""
    import onnx

    tensors = [tensor.name for inner in _graphs(graph.model.graph) for tensor in inner.initializer]
    for name in (*tensors, *(name for node in graph.named("Constant") for name in node.output)):
        if graph.view.elem_type(name) != onnx.TensorProto.INT64:
            continue
        value = graph.view.value(name)
        if value is not None and value.size and not -_INT32 <= value.min() <= value.max() < _INT32:
            low, high = int(value.min()), int(value.max())
            yield name, low if -low > high else high
    for node in graph.named("ConstantOfShape"):
        filled = attribute(node, "value")
        if filled is not None and filled.data_type == onnx.TensorProto.INT64:
            number = int(onnx.numpy_helper.to_array(filled).ravel()[0])
            if not -_INT32 <= number < _INT32:
                yield node.output[0], number


def _readers_of_value(name: str, value: int, uses: dict[str, list[Use]]) -> Iterator[onnx.NodeProto]:
    """The nodes for which it matters that the value is another, each once."""
    waiting, seen = [name], {name}
    found: set[str] = set()
    while waiting:
        for node, index in uses.get(waiting.pop(), ()):
            if (node.op_type, index) in _SENTINELS or (node.op_type, index, value > 0) in _BOUNDS:
                continue
            if _carries(node, index):
                fresh = [output for output in node.output if output not in seen]
                seen.update(fresh)
                waiting.extend(fresh)
            elif label(node) not in found:
                found.add(label(node))
                yield node


def _carries(node: onnx.NodeProto, index: int) -> bool:
    """Whether an input's integers become the output's, unchanged."""
    import onnx

    if node.op_type == "Cast" and attribute(node, "to") not in (onnx.TensorProto.INT32, onnx.TensorProto.INT64):
        return False
    return node.op_type in _CARRIERS and (index == 0 or node.op_type == "Concat")


def _ports(graph: LintGraph) -> Iterator[tuple[str, onnx.ValueInfoProto]]:
    constants = {tensor.name for tensor in graph.model.graph.initializer}
    yield from (("input", value) for value in graph.model.graph.input if value.name not in constants)
    yield from (("output", value) for value in graph.model.graph.output)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in nodes_of(graph):
        yield from subgraphs(node)
