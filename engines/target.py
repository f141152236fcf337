"""Target profiles: one TOML file a device or engine, beside this file under targets/."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.suggest import known_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FAMILIES = ("cpu", "gpu")


@dataclass(frozen=True)
class Target:
    """Where an artifact is going.

    Attributes:
        name: the file's name without its suffix.
        title: what a person calls it.
        family: which family of export forms suits its engine, `cpu` or `gpu`.
        opset: the opset that its artifacts are written at.
        ir_version: the ONNX IR version that its artifacts are written at.
        device: facts about the hardware and its software, for reports.
    """

    name: str
    title: str
    family: str
    opset: int
    ir_version: int
    device: dict[str, str | int | float | bool]


def target_names() -> list[str]:
    return sorted(file.stem for file in _folder().glob("*.toml"))


def load_target(name: str) -> Target:
    """Reads a target by name.

    Raises:
        BadRequest: no such target (the known ones are listed, nearest first),
            or its file breaks the schema (file and key are named).
    """
    names = target_names()
    if name not in names:
        raise BadRequest(f"Unknown target {name!r}. {known_names(name, names)}")
    return target_from_toml(_folder() / f"{name}.toml")


def target_from_toml(file: Path) -> Target:
    """Reads one profile; `load_target` says what is raised."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{file}: not a TOML file: {error}.") from error
    unknown = sorted(set(table) - {"title", "family", "onnx", "device"})
    if unknown:
        raise BadRequest(f"{file}: unknown key {unknown[0]!r}; the schema has title, family, [onnx] and [device].")
    family = _value(file, table, "family", str)
    if family not in FAMILIES:
        raise BadRequest(f"{file}: family is {family!r}, must be one of {', '.join(FAMILIES)}.")
    onnx = _value(file, table, "onnx", dict)
    device = _value(file, table, "device", dict)
    for key in sorted(set(onnx) - {"opset", "ir_version"}):
        raise BadRequest(f"{file}: unknown key onnx.{key}; [onnx] has opset and ir_version.")
    for key, value in device.items():
        if not isinstance(value, (str, int, float)):
            raise BadRequest(f"{file}: key device.{key} is {value!r}, must be text, a number or a bool.")
    return Target(
        name=file.stem,
        title=_value(file, table, "title", str),
        family=family,
        opset=_value(file, onnx, "opset", int, "onnx."),
        ir_version=_value(file, onnx, "ir_version", int, "onnx."),
        device=device,
    )


def _folder() -> Path:
    return Path(__file__).resolve().parent / "targets"


def _value(file: Path, table: dict[str, Any], key: str, kind: type, prefix: str = "") -> Any:
    value = table.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "is missing" if value is None else f"is {value!r}"
        raise BadRequest(f"{file}: key {prefix}{key} {found}, must be a {kind.__name__}.")
    return value
