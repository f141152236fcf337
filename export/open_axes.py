"""Holds a traced graph to the axes that it leaves open: whatever the network baked in shows on other extents."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.export.source_lines import source_line
from deploy_attn.jetson.errors import BadRequest, first_line

if TYPE_CHECKING:
    import onnx

    from deploy_attn.jetson.artifact import Case

_NODE = re.compile(r"Name:'([^']+)'")
_MOST_LINES = 5


@contextlib.contextmanager
def frozen_lines() -> Iterator[list[str]]:
    """Collects the source lines that a trace inside says it may have frozen; other warnings go on as they were."""
    import torch

    tracer = torch.jit.TracerWarning  # type: ignore[attr-defined]
    lines: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", tracer)
        yield lines
    for warning in caught:
        if issubclass(warning.category, tracer):
            lines.append(source_line(warning.filename, warning.lineno))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def check_open_axes(model: onnx.ModelProto, cases: Sequence[Case], frozen: Sequence[str]) -> None:
    """Runs a graph on every case.

    Args:
        cases: of other extents than the graph was traced with.
        frozen: source lines that the trace may have frozen.

    Raises:
        BadRequest: it does not take one, or answers with another shape.
    """
    if not cases:
        return
    # As written, so that the node that fails has the name that the network gave it.
    with OnnxRuntimeRunner(model.SerializeToString(), optimise=False) as run:
        for case in cases:
            shapes = ", ".join("x".join(map(str, array.shape)) for array in case.inputs.values())
            try:
                outputs = run.infer(case.inputs)
            except Exception as error:  # onnxruntime's errors have no base class of their own
                raise _baked_in(f"it fails on {shapes}{_at(error)}", frozen) from error
            for name, wanted in case.outputs.items():
                if outputs[name].shape != wanted.shape:
                    found = f"it gives {name} as {outputs[name].shape} for {shapes}, the network {wanted.shape}"
                    raise _baked_in(found, frozen)


def _at(error: Exception) -> str:
    """The node that fails; its name begins with the path of its module."""
    named = _NODE.search(str(error))
    return f" at node {named.group(1)}" if named else f": {first_line(error)}"


def _baked_in(found: str, frozen: Sequence[str]) -> BadRequest:
    listed = list(dict.fromkeys(frozen))[:_MOST_LINES]
    where = f" The trace made numbers of open extents at {', '.join(listed)}." if listed else ""
    return BadRequest(
        f"The network bakes the size that it was traced with into its graph: {found}.{where}\n"
        "Write -1 or flatten for what is open (x.reshape(-1, c, h, w), x.flatten(2)), without int() and without sizes "
        "kept from the constructor; or export without --dynamic-batch and --dynamic-size."
    )
