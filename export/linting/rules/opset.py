"""Opset and IR version: what the target's parser was built against."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_attn.engines.target import Target
from deploy_attn.export.linting.finding import Effect, Finding
from deploy_attn.export.linting.graph import ONNX_DOMAINS, LintGraph

_OLDEST = 7  # TensorRT's parsers warn below it, and ONNX's own version converter starts there

# TensorRT version -> newest opset that its parser documents, IR version of the ONNX that it was built with.
_DOCUMENTED = (
    ((8, 0), 13, 7),
    ((8, 4), 17, 8),
    ((9, 0), 19, 9),
    ((10, 0), 20, 10),
    ((10, 6), 22, 10),
    ((10, 11), 23, 11),
    ((10, 15), 24, 11),
    ((11, 0), 24, 13),
)


def versions(graph: LintGraph, target: Target) -> Iterator[Finding]:
    """An opset or IR version above what the target documents, or an opset below what anything tests."""
    parser = _parser(target)
    title = f"onnxruntime, as {target.name} has it," if parser is None else f"TensorRT {parser}"
    opset, ir_version = _read(target)
    if graph.opset > opset:
        why = f"{title} documents opsets to {opset}; this is {graph.opset}"
        if parser is not None:
            why += ". Its parser does not check: a form that is newer than it may be read as an older one"
        yield _of_model("opset-above", "risky", why, f"export at opset {target.opset}, or lower it with --fix")
    if graph.opset < _OLDEST and any(item.domain in ONNX_DOMAINS for item in graph.model.opset_import):
        yield _of_model(
            "opset-below",
            "risky",
            f"opset {graph.opset} is older than {_OLDEST}, the oldest that parsers test: forms of that time, "
            "as Reshape and broadcasting by attributes, may be misread",
            f"convert it: onnx.version_converter.convert_version(model, {target.opset})",
        )
    if graph.model.ir_version > ir_version:
        why = f"{title} was built with IR {ir_version}; this is {graph.model.ir_version}"
        if parser is not None:
            why += ". Its parser ignores the number, but ONNX tools of its time refuse the file"
        yield _of_model("ir-above", "risky", why, f"save with model.ir_version = {target.ir_version}")


def _parser(target: Target) -> str | None:
    return None if target.tensorrt is None else ".".join(map(str, target.tensorrt))


def _read(target: Target) -> tuple[int, int]:
    """Newest opset and IR version that a target documents; its profile's own are never above them."""
    if target.tensorrt is None:
        return target.opset, target.ir_version
    older = [row for row in _DOCUMENTED if row[0] <= target.tensorrt] or [_DOCUMENTED[0]]
    return max(older[-1][1], target.opset), max(older[-1][2], target.ir_version)


def _of_model(rule: str, effect: Effect, why: str, remedy: str) -> Finding:
    return Finding(rule, "", "", effect, why, remedy)
