"""Where in a network the operator stands that an exporter refuses."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from deploy_attn.export.source_lines import is_torchs_own, module_said, source_line

if TYPE_CHECKING:
    from torch import Tensor, nn

_OPERATOR = re.compile(r"operator '?(?:aten::)?(\w+)")
_FRAME = re.compile(r"(.+)\((\d+)\): ")
_MOST_PLACES = 5


def place_of_operator(module: nn.Module, tensors: Sequence[Tensor], message: str) -> str:
    """A line for each module and source line with the operator that a message names; "" where none is found."""
    named = _OPERATOR.search(message)
    places = list(dict.fromkeys(_places(module, tensors, f"aten::{named.group(1)}".lower()))) if named else []
    more = [f"  and {len(places) - _MOST_PLACES} more places"] if len(places) > _MOST_PLACES else []
    return "".join(f"{line}\n" for line in (*places[:_MOST_PLACES], *more))


def _places(module: nn.Module, tensors: Sequence[Tensor], kind: str) -> Iterator[str]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(module, tuple(tensors), check_trace=False, strict=False)
    except Exception:  # a network that cannot even be traced has its message already
        return
    for node in traced.inlined_graph.nodes():
        if node.kind().lower() == kind:
            path = node.scopeName().rpartition("/")[2].replace("__module.", "")
            inner = module.get_submodule(path)
            yield f"  {node.kind()} in {module_said(path, type(inner).__name__)}{_line(node.sourceRange())}"


def _line(stack: str) -> str:
    """The first line of a stack that is not torch's own."""
    frames = (_FRAME.match(line) for line in stack.splitlines())
    users = (found for found in frames if found and not is_torchs_own(found[1]))
    return next((f", {source_line(found[1], int(found[2]))}" for found in users), "")
