"""The catalogue and the targets as tables and as JSON, without any library.

The room of the engines imports numpy, so the target profiles are read here as
the plain TOML that they are; `engines/target.py` has their schema.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy_attn.modules.catalogue import entries
from deploy_attn.modules.settings import option_text

_HEADINGS = ("NAME", "YEAR", "ARXIV", "TITLE", "OPTIONS", "NEEDS")
# Heading -> fact of a target, with its mark.
_TARGET_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "OPSET": "onnx.opset",
        "IR": "onnx.ir_version",
        "SM": "device.compute_capability",
        "GIB": "device.memory_gib",
        "GB/S": "device.bandwidth_gb_per_s",
        "FP32": "device.peak_fp32_tflops",
        "FP16": "device.peak_fp16_tflops",
        "FP16 TENSOR": "device.peak_fp16_tensor_tflops",
        "INT8": "device.int8",
    }
)
_TARGETS_LEGEND = """\
SM is the compute capability, GIB the memory, GB/S its bandwidth; FP32, FP16 and FP16 TENSOR are peaks in TFLOPS. The
letter after a value says how far it is to be trusted: v verified, t from a third party, d derived, r recalled. --json
has the notes as well. On desktop GPUs TensorRT is the oldest that is expected there. A target of your own is a file:
--target board.toml; docs/targets.md says how to write one."""


def listing(targets: bool, as_json: bool) -> str:
    """What `list` prints: the catalogue, or the targets."""
    if targets:
        return targets_json() if as_json else targets_table()
    return catalogue_json() if as_json else catalogue_table()


def targets_table() -> str:
    """One row a target, columns aligned, a mark beside each value."""
    rows: list[Sequence[str]] = [("NAME", "TITLE", "RUNS", *_TARGET_COLUMNS)]
    for target in _targets():
        facts = target["facts"]
        runs = f"TensorRT {_marked(facts, 'runtime.tensorrt')}" if target["engine"] == "tensorrt" else target["engine"]
        cells = (_marked(facts, key) for key in _TARGET_COLUMNS.values())
        rows.append((target["name"], target["title"], runs, *cells))
    return f"{_aligned(rows)}\n\n{_TARGETS_LEGEND}"


def targets_json() -> str:
    """A JSON array, one object a target; a fact has its value, its mark and its note."""
    import json

    return json.dumps(_targets(), indent=2)


def _targets() -> list[dict[str, Any]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    found = []
    folder = Path(__file__).resolve().parent / "engines" / "targets"
    for file in sorted(folder.glob("*.toml"), key=lambda file: file.stem):
        profile = tomllib.loads(file.read_text(encoding="utf-8"))
        facts = {
            f"{table}.{key}": {"value": fact["value"], "mark": fact["mark"], "note": fact.get("note", "")}
            for table, keys in profile.items()
            if isinstance(keys, dict)
            for key, fact in keys.items()
        }
        head = {name: profile[name] for name in ("title", "family", "engine")}
        found.append({"name": file.stem, **head, "facts": facts})
    return found


def _marked(facts: Mapping[str, Mapping[str, Any]], key: str) -> str:
    if key not in facts:
        return "-"
    value, mark = facts[key]["value"], facts[key]["mark"]
    shown = ("yes" if value else "no") if isinstance(value, bool) else str(value)
    return f"{shown} {mark[0]}"


def catalogue_table() -> str:
    """One row a module, columns aligned."""
    rows = [_HEADINGS]
    for entry in entries():
        options = " ".join(f"{option.name}={option_text(option.default)}" for option in entry.options) or "-"
        needs = ", ".join(constraint.text for constraint in (*entry.constraints, *entry.map_constraints)) or "-"
        rows.append((entry.name, str(entry.year), entry.arxiv or "-", entry.title, options, needs))
    table = _aligned(rows)
    return f"{table}\n\nOptions are set with --set NAME=VALUE, channels with --channels, height and width with --shape."


def catalogue_json() -> str:
    """A JSON array, one object a module."""
    import json

    return json.dumps(
        [
            {
                "name": entry.name,
                "title": entry.title,
                "year": entry.year,
                "arxiv": entry.arxiv,
                "options": [
                    {
                        "name": option.name,
                        "default": option.default,
                        "meaning": option.meaning,
                        "choices": list(option.choices),
                        "minimum": option.minimum,
                        "maximum": option.maximum,
                    }
                    for option in entry.options
                ],
                "constraints": [constraint.text for constraint in entry.constraints],
                "map_constraints": [constraint.text for constraint in entry.map_constraints],
                "open_map_constraints": [constraint.text for constraint in entry.open_map_constraints],
                "parameters": entry.parameters,
                "macs": entry.macs,
                "hazards": list(entry.hazards),
                "source_arguments": dict(entry.source_arguments),
            }
            for entry in entries()
        ],
        indent=2,
    )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
