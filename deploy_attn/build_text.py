"""A build for a person: what the engine is, what its kernels move, and where it lies."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.profile import shape_text
from deploy_attn.jetson.tensorrt_module import title

if TYPE_CHECKING:
    from deploy_attn.engines.build import BuildReport
    from deploy_attn.engines.builder import Progress

SHOWN_LAYERS = 12
_COLUMNS: Mapping[str, int] = MappingProxyType(
    {"kernel": 12, "type": 11, "reads": 9, "writes": 9, "types": 14, "nodes": 12}
)
_COLUMNS_WITHOUT_SIZES: Mapping[str, int] = MappingProxyType({"layer": 12, "type": 11, "types": 14, "nodes": 12})
_MEMORY = MappingProxyType({"scratch": "scratch_bytes", "weights": "weights_bytes"})
_WIDEST_CELL = 60


def heading(report: BuildReport) -> str:
    """Which engine it is, and whether it was built."""
    key = report.manifest.key
    outcome = "built before with the same options" if report.cached else f"built in {report.seconds:.1f} s"
    gpus = "8.0 and newer" if key.options.get("hardware_compatible") else ", ".join(key.compute_capabilities)
    return (
        f"{key.graph_file} in {key.precision} for {report.manifest.target} (compute capability {gpus}), "
        f"{title(key.engine)} {key.runtime_version}: {outcome}"
    )


def shapes(report: BuildReport) -> list[str]:
    """The shapes that open inputs take, a line an input."""
    return [
        f"input {name} takes {' to '.join(map(shape_text, (least, most)))}, tuned for {shape_text(best)}"
        for name, (least, best, most) in report.manifest.key.options.get("profile", {}).items()
    ]


def figures(report: BuildReport) -> str:
    """Kernels, traffic, scratch and weights, as far as the builder tells them."""
    facts = report.manifest.facts
    parts = [f"kernels: {facts['kernels']}"] if facts.get("kernels") else []
    if "traffic_bytes" in facts:
        parts.append(f"traffic: {_traffic(facts)}")
    parts += [f"{what}: {_bytes(facts[key])}" for what, key in _MEMORY.items() if key in facts]
    return "   ".join(parts)


def layer_columns(report: BuildReport) -> Mapping[str, int]:
    """The headings of `layer_rows`, and the width that each keeps on a narrow terminal."""
    shown = _COLUMNS if "traffic_bytes" in report.manifest.facts else _COLUMNS_WITHOUT_SIZES
    return shown if report.manifest.facts.get("layers") else {}


def layer_rows(report: BuildReport) -> list[tuple[str, ...]]:
    """The first layers, a cell for each of `layer_columns`."""
    layers = report.manifest.facts.get("layers", ())[:SHOWN_LAYERS]
    return [_kernel_row(layer) if "layer_type" in layer else _row(layer) for layer in layers]


def unshown_layers(report: BuildReport) -> int:
    return max(len(report.manifest.facts.get("layers", ())) - SHOWN_LAYERS, 0)


@contextlib.contextmanager
def progress_on_stderr(still: bool = False) -> Iterator[Progress | None]:
    """A callback that shows the phases of a job on a terminal, and nothing (None) where stderr is none.

    Args:
        still: drawn only while the callback runs, for jobs that time something: no thread draws beside them.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    screen = Console(stderr=True)
    with Progress(
        *columns,
        console=screen,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        auto_refresh=not still,
    ) as shown:
        tasks: dict[str, TaskID] = {}

        def take(event: Mapping[str, Any]) -> None:
            phase, total, done = str(event["phase"]), event["steps"], event["step"]
            if phase not in tasks:
                tasks[phase] = shown.add_task(phase, total=total)
            shown.update(tasks[phase], total=total, completed=done, visible=total is None or done < total)
            if still:
                shown.refresh()

        yield take


def _traffic(facts: Mapping[str, Any]) -> str:
    if facts["traffic_bytes"] is None:
        return "known at run time only, since sizes are open"
    passes = facts.get("traffic_passes")
    over = "" if passes is None else f", {passes:.2f} passes over the input map"
    return f"{_bytes(facts['traffic_bytes'])}{over}"


def _kernel_row(kernel: Mapping[str, Any]) -> tuple[str, ...]:
    """Of TensorRT-RTX, as its builder's log says."""
    return (
        _cut(kernel["name"]),
        kernel["layer_type"],
        _bytes(kernel["bytes_read"]),
        _bytes(kernel["bytes_written"]),
        _types(kernel["types_read"], kernel["types_written"]),
        _cut(", ".join(kernel["onnx_nodes"])),
    )


def _row(layer: Mapping[str, Any]) -> tuple[str, ...]:
    """Of TensorRT, as its inspector or its log says."""
    types = _types(sorted(set(layer["inputs"])), sorted(set(layer["outputs"])))
    return _cut(layer["name"]), layer["type"], types, _cut(", ".join(layer["nodes"]))


def _types(read: Sequence[str], written: Sequence[str]) -> str:
    return f"{'+'.join(read)} -> {'+'.join(written)}" if read or written else ""


def _bytes(size: int | None) -> str:
    if size is None:
        return "open"
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size} bytes"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST_CELL else f"{text[: _WIDEST_CELL - 3]}..."
