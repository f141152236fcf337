"""Every name that a graph reads is made before, once: else it is cut short, cyclic, or out of order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_attn.export.linting.graph import label, subgraphs
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    import onnx

_SHOWN = 6  # nodes of a cycle
_Scopes = tuple[set[str], ...]  # names that can be read, outermost graph first


def check_order(path: Path, model: onnx.ModelProto) -> None:
    """Holds a model's graphs, inner ones and functions included, against ONNX's order of names.

    Raises:
        BadRequest: a cycle, a node before one that makes what it reads, a name
            that nothing makes or two nodes make, or a name that is no text.
    """
    _check_graph(path, model.graph, ())
    for function in model.functions:
        _check_text(path, [function.name, function.domain, *function.input, *function.output])
        scopes = (set(function.input),)
        _check_nodes(path, function.node, scopes)
        _check_outputs(path, function.output, scopes)


def _check_graph(path: Path, graph: onnx.GraphProto, outer: _Scopes) -> None:
    given = {
        *(value.name for value in graph.input),
        *(tensor.name for tensor in graph.initializer),
        *(tensor.values.name for tensor in graph.sparse_initializer),
    }
    _check_text(path, [*given, *(value.name for value in (*graph.output, *graph.value_info))])
    scopes = (*outer, given)
    _check_nodes(path, graph.node, scopes)
    _check_outputs(path, [value.name for value in graph.output], scopes)


def _check_nodes(path: Path, listed: Iterable[onnx.NodeProto], scopes: _Scopes) -> None:
    """Adds the names that these nodes make to the innermost scope."""
    nodes = list(listed)
    reads = [tuple(node.input) for node in nodes]
    makes = [tuple(node.output) for node in nodes]
    names = chain(*reads, *makes, (node.name for node in nodes), (node.op_type for node in nodes))
    _check_text(path, list(names))
    known = scopes[-1]
    makers = _makers(path, nodes, makes, known)
    for node, read, made in zip(nodes, reads, makes):
        for name in read:
            if name and name not in known and not _can_be_read(name, scopes):
                raise BadRequest(f"{path}: {_why_missing(node, name, makers, nodes)}")
        for subgraph in subgraphs(node):
            _check_graph(path, subgraph, scopes)
        known.update(made)


def _makers(
    path: Path, nodes: Iterable[onnx.NodeProto], makes: Iterable[tuple[str, ...]], known: set[str]
) -> dict[str, onnx.NodeProto]:
    """Which node makes each name."""
    makers: dict[str, onnx.NodeProto] = {}
    for node, made in zip(nodes, makes):
        for name in made:
            if name in makers or (name and name in known):
                other = f"node {label(makers[name])!r} makes" if name in makers else "an input or weight is called"
                raise BadRequest(
                    f"{path}: node {label(node)!r} makes {name!r}, which {other} already. "
                    "Give each tensor a name of its own."
                )
            if name:
                makers[name] = node
    return makers


def _check_outputs(path: Path, outputs: Iterable[str], scopes: _Scopes) -> None:
    for name in outputs:
        if not _can_be_read(name, scopes):
            raise BadRequest(f"{path}: nothing makes the output {name!r}. It was cut short or edited; export it again.")


def _can_be_read(name: str, scopes: _Scopes) -> bool:
    return any(name in scope for scope in reversed(scopes))


def _why_missing(
    node: onnx.NodeProto, name: str, makers: Mapping[str, onnx.NodeProto], nodes: Sequence[onnx.NodeProto]
) -> str:
    if name not in makers:
        return (
            f"node {label(node)!r} reads {name!r}, which nothing before it makes. "
            "It was cut short or edited; export it again."
        )
    cycle = _cycle(makers, nodes)
    if cycle:
        shown = [label(item) for item in cycle[:_SHOWN]]
        more = "" if len(cycle) <= _SHOWN else f" through {len(cycle) - _SHOWN} more"
        return f"the graph is cyclic: {' -> '.join([*shown, '...' if more else shown[0]])}{more}. No engine runs that."
    return (
        f"node {label(node)!r} reads {name!r} before node {label(makers[name])!r} makes it. "
        "ONNX wants nodes in topological order; sort them."
    )


def _cycle(makers: Mapping[str, onnx.NodeProto], nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes of one cycle, in the direction of the data; empty where there is none."""
    places = {id(node): place for place, node in enumerate(nodes)}
    reads = [{places[id(makers[name])] for name in node.input if name in makers} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for place, read in enumerate(reads):
        for maker in read:
            readers[maker].append(place)
    waits = [len(read) for read in reads]
    ready = [place for place, count in enumerate(waits) if not count]
    while ready:
        for reader in readers[ready.pop()]:
            waits[reader] -= 1
            if not waits[reader]:
                ready.append(reader)
    now = next((place for place, count in enumerate(waits) if count), None)
    if now is None:
        return []
    walked: dict[int, int] = {}
    while now not in walked:
        walked[now] = len(walked)
        # Whoever still waits, waits for another one that does.
        now = next(maker for maker in sorted(reads[now]) if waits[maker])
    return [nodes[place] for place in reversed(list(walked)[walked[now] :])]


def _check_text(path: Path, names: Sequence[str | bytes]) -> None:
    """Protobuf hands out a string that is no UTF-8 as bytes."""
    if bytes not in map(type, names):
        return
    for name in names:
        if isinstance(name, bytes):
            raise BadRequest(f"{path} is damaged: the name {name!r} is not text. Copy or export it again.")
