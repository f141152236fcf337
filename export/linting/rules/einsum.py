"""Einsum: which equations a version's parser and its layer take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, attribute, label
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

_ELLIPSIS = (9, 0)  # the parser writes it out
_MANY_INPUTS = (8, 6)
_DIAGONAL = (10, 12)
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz->., ")
_REWRITE = "write it as Transpose, Reshape and MatMul, which every version takes"


def equations(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """8.2 to 10.11 take plain contractions of lower-case letters; 10.12 takes the rest, but no capitals."""
    if not parser.knows("Einsum"):
        return
    for node in graph.named("Einsum"):
        for why, remedy in _problems(graph, parser, node):
            yield Finding("einsum-equation", label(node), node.op_type, "refused", why, remedy)


def _problems(graph: LintGraph, parser: Parser, node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    equation = attribute(node, "equation", b"").decode("utf-8", "replace")
    terms = [term.strip() for term in equation.split("->")[0].split(",")]
    other = sorted(set(equation) - _ALLOWED)
    if other:
        yield f"TensorRT takes lower-case letters only; this equation has {', '.join(other)}", "rename the letters"
    if "..." in equation and parser.version < _ELLIPSIS:
        yield "TensorRT before 9.0 takes no ellipsis", "write the axes out, or " + _REWRITE
    if len(terms) > 2 and parser.version < _MANY_INPUTS:
        yield "TensorRT before 8.6 contracts at most two tensors", "contract two at a time"
    if parser.version >= _DIAGONAL:
        return
    if any(len(set(letters)) < len(letters) for letters in (term.replace(".", "") for term in terms)):
        yield "TensorRT before 10.12 takes no diagonal: a letter stands twice in one term", _REWRITE
    for letter in _broadcast(graph, node, terms):
        yield (
            f"TensorRT before 10.12 does not broadcast: the extents of {letter!r} differ",
            "expand the smaller tensor, or " + _REWRITE,
        )


def _broadcast(graph: LintGraph, node: onnx.NodeProto, terms: list[str]) -> list[str]:
    """Letters, and axes of an ellipsis, that stand for one and for more elements."""
    extents: dict[str, set[int]] = {}
    for name, term in zip(node.input, terms):
        shape = graph.view.shape(name)
        axes = None if shape is None else _axes(term.replace(" ", ""), len(shape))
        for axis, extent in zip(axes or (), shape or ()):
            if extent is not None:
                extents.setdefault(axis, set()).add(extent)
    return list(dict.fromkeys(axis.rstrip("0123456789") for axis, found in extents.items() if len(found) > 1))


def _axes(term: str, rank: int) -> list[str] | None:
    """What a term calls each axis: a letter, or its place in the ellipsis from the end; None for a wrong rank."""
    head, ellipsis, tail = term.partition("...")
    hidden = rank - len(head) - len(tail)
    if hidden < 0 or (hidden and not ellipsis):
        return None
    return [*head, *(f"...{place}" for place in range(hidden, 0, -1)), *tail]
