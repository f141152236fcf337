"""What a version of TensorRT's ONNX parser knows: the bundled tables of its operators."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from deploy_attn.engines.target import Target

# TensorRT version -> the types that operators are documented for -> these operators. Two keys are no types:
# operators that the version has an importer for and no documentation, and those that it has no importer for.
_TABLES = Path(__file__).with_name("tensorrt_ops.json")
_UNDOCUMENTED, _NONE = "undocumented", "none"

Table = Mapping[str, Mapping[str, Any]]
Support = Literal["yes", "no", "unknown"]

# Operators that came between two tables -> the version that brought them, from onnx-tensorrt's changelog.
_ADDED: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "Attention": (10, 14),
        "BlackmanWindow": (10, 4),
        "HammingWindow": (10, 4),
        "HannWindow": (10, 4),
        "Hardmax": (9, 2),
        "RMSNormalization": (10, 15),
        "RotaryEmbedding": (10, 15),
        "STFT": (10, 5),
        "TensorScatter": (10, 15),
    }
)


@dataclass(frozen=True)
class Parser:
    """The parser of a target's TensorRT.

    Attributes:
        version: of TensorRT on the target, (major, minor).
        table: the version whose table is used: the newest known that is not newer than the target's.
        operators: per operator, `importer` (whether it has one) and `types`, those it is documented
            for (none where it has no documentation).
        target: where the model is going.
        later: the next newer table; None where `table` is the newest.
    """

    version: tuple[int, int]
    table: str
    operators: Table
    target: Target
    later: Table | None = None

    def knows(self, op_type: str) -> bool:
        """Whether this version is known to have an importer for an operator."""
        return self.support(op_type) == "yes"

    def support(self, op_type: str) -> Support:
        """Whether this version has an importer; unknown where only older or newer versions tell."""
        here = _has(self.operators, op_type)
        if here or _version(self.table) == self.version:
            return "yes" if here else "no"
        if self.later is None:
            return "unknown" if op_type not in self.operators else "no"
        if not _has(self.later, op_type):
            return "no"
        since = _ADDED.get(op_type)
        if since is None:
            return "unknown"
        return "yes" if since <= self.version else "no"

    def types(self, op_type: str) -> tuple[str, ...]:
        """The types that an operator is documented for, as `FP32`; none where nothing tells."""
        for table in (self.operators, self.later or {}):
            if _has(table, op_type):
                return tuple(table[op_type]["types"])
        return ()


def parser_of(target: Target) -> Parser | None:
    """The parser of a target with TensorRT, else None."""
    if target.tensorrt is None:
        return None
    tables: dict[str, dict[str, str]] = json.loads(_TABLES.read_text(encoding="utf-8"))
    names = sorted(tables, key=_version)
    place = max(0, sum(_version(name) <= target.tensorrt for name in names) - 1)
    later = _table(tables[names[place + 1]]) if place + 1 < len(names) else None
    return Parser(target.tensorrt, names[place], _table(tables[names[place]]), target, later)


def _table(groups: Mapping[str, str]) -> Table:
    table: dict[str, Mapping[str, Any]] = {}
    for types, operators in groups.items():
        entry = {
            "importer": types != _NONE,
            "types": () if types in (_NONE, _UNDOCUMENTED) else tuple(types.split()),
        }
        table.update(dict.fromkeys(operators.split(), entry))
    return MappingProxyType(table)


def _has(table: Table, op_type: str) -> bool:
    return bool(table.get(op_type, {}).get("importer"))


def _version(name: str) -> tuple[int, int]:
    major, minor = name.split(".")
    return int(major), int(minor)
