"""A copy of a model in which every node that needs an exact rewrite and has one is rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from deploy_attn.engines.shapes import shapes_as_far_as_known
from deploy_attn.engines.target import Target
from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.fixes.bench import Aim, Bench, NoExactRewrite
from deploy_attn.export.linting.fixes.lowering import OLDEST_GOAL, fitted, has_changed
from deploy_attn.export.linting.fixes.scope import Names, Scope
from deploy_attn.export.linting.fixes.table import FIXES
from deploy_attn.export.linting.graph import ONNX_DOMAINS, label, nodes_of, subgraphs
from deploy_attn.export.linting.parser import parser_of

if TYPE_CHECKING:
    import onnx

_Message = TypeVar("_Message")

VERSION_RULES = ("opset-above", "ir-above")
_OPSET_RULE, _IR_RULE = VERSION_RULES
_AXES_RULE = "reduce-axes-input"
_LAST_WITH_AXES_ATTRIBUTE = 17
_FUNCTIONS_SINCE = (9, 0)  # TensorRT's parser; the IR has them from 8 on
_FUNCTIONS_IR = 8
# Of a plan, not of a rewrite: what FP16 would do to a node that is right in FP32.
HAZARD = "half-"


@dataclass(frozen=True)
class Change:
    """One node and what was done to it, or why nothing exact can be; for the whole model with a rule instead."""

    node: str
    op_type: str
    what: str
    rule: str = ""


@dataclass(frozen=True)
class Rewritten:
    """A copy.

    Attributes:
        model: the copy.
        opset: that it is to have.
        done: what was changed, in graph order.
        refused: what needs a rewrite and has no exact one.
        blocked: whether a refused node keeps the copy from being a model at all.
    """

    model: onnx.ModelProto
    opset: int
    done: tuple[Change, ...]
    refused: tuple[Change, ...]
    blocked: bool


def rewritten(model: onnx.ModelProto, target: Target, findings: Iterable[Finding]) -> Rewritten:
    """Rewrites a copy of a model, whose weights are inside it, for a target."""
    import onnx

    found = [finding for finding in findings if not finding.rule.startswith(HAZARD)]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    work = _Work(_aim(copy, target, found), frozenset(finding.node for finding in found))
    copy = _without_functions(copy, target, work)
    if work.aim.goal < min(OLDEST_GOAL, work.aim.source):
        reason = f"the target asks for opset {work.aim.goal}, and rewrites go down to {OLDEST_GOAL}"
        return Rewritten(copy, work.aim.goal, (), (Change("", "", reason),), True)
    work.model(copy)
    _set_versions(copy, target, work, {finding.rule for finding in found})
    return Rewritten(copy, work.aim.goal, tuple(work.done), tuple(work.refused), work.blocked)


class _Work:
    """What has been done so far."""

    def __init__(self, aim: Aim, found: frozenset[str]) -> None:
        self.aim = aim
        self.done: list[Change] = []
        self.refused: list[Change] = []
        self.blocked = False
        self._found = found
        self._weights: list[onnx.TensorProto] = []
        self._let_go: set[str] = set()

    def model(self, model: onnx.ModelProto) -> None:
        graph, inferred = model.graph, shapes_as_far_as_known(model, data_prop=True)
        self._names = Names(graph)
        self._graph(graph, inferred, Scope(graph, inferred, model.ir_version))
        graph.initializer.extend(self._weights)
        _drop_constants(graph, self._let_go - set(_read(graph)))

    def needs_nodes(self, target: Target) -> bool:
        """Whether functions of the model have to go: to be read at all, or so that what they hold is rewritten."""
        parser = self.aim.parser
        unread = target.ir_version < _FUNCTIONS_IR or (parser is not None and parser.version < _FUNCTIONS_SINCE)
        return unread or self.aim.goal < self.aim.source or any(self._found)

    def _graph(self, graph: onnx.GraphProto, inferred: onnx.GraphProto, scope: Scope) -> None:
        kept: list[onnx.NodeProto] = []
        for node, known in zip(graph.node, inferred.node):
            for body, known_body in zip(subgraphs(node), subgraphs(known)):
                self._graph(body, known_body, scope.inner(body, known_body))
            kept.extend(self._replacement(node, scope) if node.domain in ONNX_DOMAINS else [node])
        kept = [_copied(node) for node in kept]
        del graph.node[:]
        graph.node.extend(kept)

    def _replacement(self, node: onnx.NodeProto, scope: Scope) -> list[onnx.NodeProto]:
        bench = Bench(node, scope, self._names, self.aim, label(node) in self._found)
        try:
            nodes, what = _rewrite(bench)
        except NoExactRewrite as refusal:
            self.refused.append(Change(label(node), node.op_type, str(refusal)))
            self.blocked = self.blocked or has_changed(node.op_type, bench)
            return [node]
        if what:
            self.done.append(Change(label(node), node.op_type, what))
            self._weights.extend(bench.weights)
            self._let_go.update(node.input)
        return nodes


def _rewrite(bench: Bench) -> tuple[list[onnx.NodeProto], str | None]:
    """The nodes in a node's place, and what was done to it."""
    node = _copied(bench.node)
    fix: Callable[[Bench], str | None] | None = FIXES.get(node.op_type)
    what = None if fix is None else fix(bench)
    if what is None:
        return [node], fitted(node, bench)
    for made in bench.nodes:
        if made.op_type == node.op_type:
            fitted(made, bench)
    return bench.nodes, what


def _aim(model: onnx.ModelProto, target: Target, found: list[Finding]) -> Aim:
    """The opset to go to: the target's if the model's is above what it documents, else the model's own."""
    source = max((item.version for item in model.opset_import if item.domain in ONNX_DOMAINS), default=0)
    rules = {finding.rule for finding in found}
    goal = min(source, target.opset) if _OPSET_RULE in rules else source
    if _AXES_RULE in rules:
        goal = min(goal, _LAST_WITH_AXES_ATTRIBUTE)
    return Aim(source, goal, parser_of(target))


def _without_functions(model: onnx.ModelProto, target: Target, work: _Work) -> onnx.ModelProto:
    """The model with calls of its own functions replaced by their nodes, where that is needed."""
    if not (model.functions and work.needs_nodes(target)):
        return model
    from onnx import inliner

    names = sorted({function.name for function in model.functions})
    calls = {(function.domain, function.name) for function in model.functions}
    try:
        flat = inliner.inline_local_functions(model, convert_version=True)
    except Exception as error:  # compiled code raises many types
        work.refused.append(Change("", "", f"its functions cannot be inlined: {error}"))
        work.blocked = True
        return model
    for node in nodes_of(model.graph):
        if (node.domain, node.op_type) in calls:
            work.done.append(Change(label(node), node.op_type, "its function's nodes in place of the call"))
    if flat.functions:
        work.refused.append(Change("", "", f"of its functions {', '.join(names)} some cannot be inlined"))
        work.blocked = True
    _name_apart(flat.graph)
    _drop_domains(flat)
    return flat


def _name_apart(graph: onnx.GraphProto) -> None:
    """A function that is called twice gives its nodes' names twice."""
    names, taken = Names(graph), set()
    for node in nodes_of(graph):
        if node.name in taken:
            node.name = names.fresh(node.name)
        if node.name:
            taken.add(node.name)


def _drop_domains(model: onnx.ModelProto) -> None:
    """Imports of domains that no node is of any more."""
    used = {node.domain for node in nodes_of(model.graph)}
    kept = [item for item in model.opset_import if item.domain in ONNX_DOMAINS or item.domain in used]
    kept = [_copied(item) for item in kept]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _set_versions(model: onnx.ModelProto, target: Target, work: _Work, rules: set[str]) -> None:
    aim = work.aim
    if aim.goal < aim.source and not work.blocked:
        for item in model.opset_import:
            if item.domain in ONNX_DOMAINS:
                item.version = aim.goal
        work.done.append(Change("", "", f"opset {aim.source} lowered to {aim.goal}", _OPSET_RULE))
    if _IR_RULE in rules and model.ir_version > target.ir_version:
        what = f"IR version {model.ir_version} lowered to {target.ir_version}"
        work.done.append(Change("", "", what, _IR_RULE))
        model.ir_version = target.ir_version


def _read(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name that a node reads or a graph gives out."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for body in subgraphs(node):
            yield from _read(body)


def _drop_constants(graph: onnx.GraphProto, names: set[str]) -> None:
    """Takes out constants that nobody reads any more."""
    inputs = {value.name for value in graph.input}
    for place in reversed(range(len(graph.initializer))):
        name = graph.initializer[place].name
        if name in names and name not in inputs:
            del graph.initializer[place]
    for place in reversed(range(len(graph.node))):
        if graph.node[place].op_type == "Constant" and graph.node[place].output[0] in names:
            del graph.node[place]
    for node in graph.node:
        for body in subgraphs(node):
            _drop_constants(body, names)


def _copied(message: _Message) -> _Message:
    copy: Any = type(message)()
    copy.CopyFrom(message)
    same: _Message = copy
    return same
