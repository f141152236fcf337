"""Where a tensor's values come from: what a parser can know before the network runs."""

from __future__ import annotations

from typing import Literal

from deploy_attn.export.linting.graph import LintGraph

# `constant`: an initializer, a Constant, or an Identity of one; `computed`: from
# those and from shapes; `input`: a graph input's values decide; `unknown`: it
# is made in a subgraph, or nowhere.
Origin = Literal["constant", "computed", "input", "unknown"]

_READS_SHAPE_ONLY = frozenset(("Shape", "Size"))


def origin_of(graph: LintGraph, name: str) -> Origin:
    """What a tensor's values depend on."""
    view = graph.view
    name = _behind_identity(graph, name)
    if _is_constant(graph, name):
        return "constant"
    inputs = {value.name for value in graph.model.graph.input}
    waiting, seen = [name], {name}
    while waiting:
        current = waiting.pop()
        if _is_constant(graph, current):
            continue
        if current in inputs:
            return "input"
        maker = view.maker(current)
        if maker is None:
            return "unknown"
        if maker.op_type not in _READS_SHAPE_ONLY:
            fresh = [item for item in maker.input if item and item not in seen]
            seen.update(fresh)
            waiting.extend(fresh)
    return "computed"


def _behind_identity(graph: LintGraph, name: str) -> str:
    maker = graph.view.maker(name)
    while maker is not None and maker.op_type == "Identity" and maker.input[0] != name:
        name = maker.input[0]
        maker = graph.view.maker(name)
    return name


def _is_constant(graph: LintGraph, name: str) -> bool:
    if graph.view.is_constant(name):
        return True
    maker = graph.view.maker(name)
    return maker is not None and maker.op_type == "Constant"
