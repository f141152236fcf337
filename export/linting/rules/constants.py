"""What a parser must know while it reads: inputs that have to be constants, and forms of Constant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label, subgraphs
from deploy_attn.export.linting.origin import origin_of
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

_FOLD = "give it as an initializer, or fold what computes it into one"
_NEVER = (99, 0)


@dataclass(frozen=True)
class Needed:
    """An input that has to be a constant, in versions from `since` on and before `until`.

    From `folded` on the builder folds what other nodes compute.
    """

    op_type: str
    index: int
    name: str
    since: tuple[int, int] = (0, 0)
    until: tuple[int, int] = _NEVER
    folded: tuple[int, int] = _NEVER


# From the parsers' asserts (8.4, 8.5, 10.6), operators.md and the changelog. TensorRT-RTX 1.7.1 refuses each
# of the unbounded ones from a graph input, and folds a sum of constants but for Reduce*.
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
_NEEDED = (
    Needed("CumSum", 1, "axis", folded=(10, 8)),
    Needed("NonMaxSuppression", 2, "max_output_boxes_per_class", until=(8, 5)),
    Needed("NonMaxSuppression", 3, "iou_threshold", until=(8, 5)),
    Needed("NonMaxSuppression", 4, "score_threshold", until=(8, 5)),
    Needed("OneHot", 1, "depth", folded=(8, 5)),
    Needed("ReduceSum", 1, "axes"),
    *(Needed(f"Reduce{name}", 1, "axes", since=(10, 0)) for name in _REDUCTIONS),
    Needed("Slice", 3, "axes", until=(10, 3)),
    Needed("Split", 1, "split", until=(8, 2)),
    Needed("Squeeze", 1, "axes", folded=(10, 7)),
    Needed("Unsqueeze", 1, "axes", folded=(10, 7)),
)
_EYELIKE_RANK = 2
_READS_VALUE_INT = (8, 6)
_ANY_HARDMAX = (10, 15)
_ANY_SEQUENCE = (8, 6)
_ANY_FLOAT_RANGE = (8, 4)


def inputs_to_know(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Axes, depths and sizes that the parser reads while it builds the network."""
    needed = [item for item in _NEEDED if item.since <= parser.version < item.until]
    for item in needed:
        for node in graph.named(item.op_type) if parser.knows(item.op_type) else ():
            for finding in must_be_constant(graph, parser, node, item.index, item.name):
                if finding.is_error or parser.version < item.folded:
                    yield finding


def must_be_constant(
    graph: LintGraph, parser: Parser, node: onnx.NodeProto, index: int, name: str
) -> Iterator[Finding]:
    """A finding where an input is no constant: refused if a graph input decides it, else risky."""
    tensor = given(node, index)
    origin = "constant" if tensor is None else origin_of(graph, tensor)
    version = f"TensorRT {parser.version[0]}.{parser.version[1]}"
    if origin == "input":
        yield Finding(
            "input-must-be-constant",
            label(node),
            node.op_type,
            "refused",
            f"{version} must know `{name}` while it reads the file; here it depends on the values of a graph input",
            f"make `{name}` an initializer",
        )
    elif origin == "computed":
        yield Finding(
            "input-must-be-constant",
            label(node),
            node.op_type,
            "risky",
            f"{version} must know `{name}` while it reads the file; here other nodes compute it, "
            "and the parser folds only some of them",
            _FOLD,
        )


def constant_forms(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Constant: no version reads sparse values and strings; 8.x misreads its integer attributes."""
    bodies = (body for node in graph.nodes for body in subgraphs(node))
    for body in (graph.model.graph, *bodies):
        for sparse in body.sparse_initializer:
            yield Finding(
                "constant-form",
                sparse.values.name,
                "",
                "refused",
                "no version of TensorRT reads sparse initializers: the parser stops at the first node that reads one "
                "(tried in TensorRT-RTX)",
                "give it as a dense initializer",
            )
    for node in graph.named("Constant"):
        names = {item.name for item in node.attribute}
        refused = names & {"sparse_value", "value_string", "value_strings"}
        if refused:
            yield Finding(
                "constant-form",
                label(node),
                node.op_type,
                "refused",
                f"no version of TensorRT reads the attribute {', '.join(sorted(refused))}",
                "give the constant as a dense tensor of numbers",
            )
        integers = names & {"value_int", "value_ints"}
        if integers and parser.version < _READS_VALUE_INT:
            yield Finding(
                "constant-value-int",
                label(node),
                node.op_type,
                "wrong result",
                f"TensorRT before 8.6 reads {', '.join(sorted(integers))} as a float attribute: "
                "the number becomes 0, a list becomes empty (source of 8.4 and 8.5)",
                "give the constant by the attribute `value`, as --fix does, or as an initializer",
            )


def float_ranges(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Range of floats: before 8.4 from initializers only; from a graph input in no version."""
    for node in graph.named("Range"):
        if not graph.view.is_float(node.input[0]):
            continue
        origins = {origin_of(graph, name) for name in node.input if name}
        if "input" in origins or ("computed" in origins and parser.version < _ANY_FLOAT_RANGE):
            yield Finding(
                "range-of-floats",
                label(node),
                node.op_type,
                "refused",
                "TensorRT makes a Range of floats only from numbers that it knows "
                + ("before it runs" if parser.version >= _ANY_FLOAT_RANGE else "as initializers (any from 8.4 on)"),
                "make start, limit and delta initializers, or compute in integers and cast the result",
            )


def shapes_to_know(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """EyeLike, Hardmax and ReverseSequence take extents from the shape while the network is built."""
    for node in graph.named("EyeLike"):
        shape = graph.view.shape(node.input[0])
        if shape is not None and (None in shape or len(shape) != _EYELIKE_RANK):
            yield _open(node, "takes EyeLike of a static 2D shape only", "export with a static shape")
    for node in graph.named("Hardmax"):
        if parser.version >= _ANY_HARDMAX or not parser.knows("Hardmax"):
            break
        shape, axis = graph.view.shape(node.input[0]), attribute(node, "axis", -1 if graph.opset >= 13 else 1)
        if shape and -len(shape) <= axis < len(shape) and shape[axis] is None:
            yield _open(node, "takes Hardmax only over an axis of known extent", "export with this axis static")
    for node in graph.named("ReverseSequence"):
        if parser.version >= _ANY_SEQUENCE:
            break
        shape = graph.view.shape(node.input[0])
        if shape is not None and None in shape:
            yield _open(node, "before 8.6 takes ReverseSequence of static shapes only", "export with a static shape")


def _open(node: onnx.NodeProto, why: str, remedy: str) -> Finding:
    return Finding("shape-must-be-known", label(node), node.op_type, "refused", f"TensorRT {why}", remedy)
