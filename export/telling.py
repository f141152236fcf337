"""Whether a statement can only tell what it reads: it raises, warns, prints or logs, and computes nothing from it."""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Iterator, Sequence
from types import FrameType

_LEVELS = frozenset(("critical", "debug", "error", "exception", "info", "log", "warn", "warning"))
_LOGGER = re.compile(r"(?:^|[._])log(?:ger|ging)?(?:$|[^a-z])|^warnings$")
_LEAVES = (ast.Return, ast.Break, ast.Continue)


def only_tells(frames: Sequence[FrameType]) -> bool:
    """Whether the statement that the first frame runs only tells, and nobody catches what it raises.

    Args:
        frames: the first and its callers; the first, where its source cannot be read, does more than tell.
    """
    trees = [_tree(frame) for frame in frames]
    if any(_is_tried(tree, frame.f_lineno) for tree, frame in zip(trees, frames)):
        return False
    statements = (node for node in ast.walk(trees[0]) if isinstance(node, ast.stmt))
    running = [statement for statement in statements if _runs(statement, frames[0].f_lineno)]
    return bool(running) and all(map(_tells, running))


def _tree(frame: FrameType) -> ast.Module:
    """What a frame's file says; nothing where it cannot be read."""
    try:
        return ast.parse("".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals)))
    except SyntaxError:
        return ast.parse("")


def _is_tried(tree: ast.Module, line: int) -> bool:
    tried = (node.body for node in ast.walk(tree) if isinstance(node, ast.Try) and node.handlers)
    return any(body[0].lineno <= line <= (body[-1].end_lineno or line) for body in tried)


def _runs(statement: ast.stmt, line: int) -> bool:
    """Whether the line is of the statement itself: of its head, where it has blocks."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return False
    spans = ((node.lineno, node.end_lineno) for node in _head(statement) if isinstance(node, ast.expr))
    return any(first <= line <= (last or first) for first, last in spans)


def _head(statement: ast.stmt) -> Iterator[ast.AST]:
    """What of a statement is not in its blocks."""
    waiting = list(ast.iter_child_nodes(statement))
    while waiting:
        node = waiting.pop()
        if not isinstance(node, (ast.stmt, ast.ExceptHandler, ast.match_case)):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def _tells(statement: ast.stmt) -> bool:
    if any(isinstance(node, ast.NamedExpr) for node in _head(statement)):
        return False  # keeps what it reads
    if isinstance(statement, ast.If):
        body, other = statement.body, statement.orelse
        return _ends(body) or _ends(other) or all(map(_tells_whatever_holds, (*body, *other)))
    return isinstance(statement, (ast.Assert, ast.Raise)) or _is_message(statement)


def _ends(block: Sequence[ast.stmt]) -> bool:
    """Whether a block always raises: a run that goes on has taken the other way."""
    inside = (node for statement in block for node in ast.walk(statement))
    return bool(block) and isinstance(block[-1], ast.Raise) and not any(isinstance(node, _LEAVES) for node in inside)


def _tells_whatever_holds(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return _tells(statement) and all(map(_tells_whatever_holds, (*statement.body, *statement.orelse)))
    return isinstance(statement, ast.Pass) or _tells(statement)


def _is_message(statement: ast.stmt) -> bool:
    """A call of print, of warn or of a logger, whose result nobody takes."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call):
        return False
    if isinstance(call.func, ast.Name):
        return call.func.id in ("print", "warn")
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in _LEVELS:
        return False
    return _LOGGER.search(ast.unparse(call.func.value).lower()) is not None
