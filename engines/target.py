"""Target profiles: one TOML file a device, beside this file under targets/ or a user's own."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.suggest import known_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FAMILIES = ("cpu", "gpu")
MARKS = ("verified", "third party", "derived", "recalled")
MEASURED = "measured here"  # of what no profile tells: a fact of the machine that it was measured on
RUNTIMES = ("onnxruntime", "tensorrt")

Value = str | int | float | bool


class Key(NamedTuple):
    """What a key of a profile takes and says."""

    kind: type
    meaning: str


# What TENSORRT_NEEDS leaves out is for reports and estimates.
SCHEMA: Mapping[str, Mapping[str, Key]] = MappingProxyType(
    {
        "onnx": {
            "opset": Key(int, "the opset that graphs are written at"),
            "ir_version": Key(int, "the ONNX IR version that graphs are written at"),
        },
        "runtime": {
            "tensorrt": Key(str, "version of TensorRT there, or the oldest that is expected; 8.0 or newer"),
            "workspace_mib": Key(int, "MiB that a build may use beside weights and tensors"),
            "jetpack": Key(str, "JetPack release"),
            "l4t": Key(str, "Jetson Linux release"),
            "cuda": Key(str, "version of CUDA"),
            "python": Key(str, "version of the system's Python"),
        },
        "device": {
            "compute_capability": Key(str, "of the GPU, as 8.7"),
            "sms": Key(int, "streaming multiprocessors"),
            "cuda_cores": Key(int, "FP32 lanes"),
            "gpu_mhz": Key(float, "highest clock of the GPU in MHz"),
            "memory_gib": Key(float, "memory in GiB; on a Jetson, CPU and GPU share it"),
            "bandwidth_gb_per_s": Key(float, "peak bandwidth of the memory in GB/s"),
            "peak_fp32_tflops": Key(float, "peak of the cores in FP32, TFLOPS"),
            "peak_fp16_tflops": Key(float, "peak of the cores in FP16, TFLOPS"),
            "peak_fp16_tensor_tflops": Key(float, "peak of the tensor cores in FP16, dense, TFLOPS"),
            "int8": Key(bool, "whether TensorRT has INT8 there"),
            "dla_cores": Key(int, "deep learning accelerators"),
        },
    }
)
# What a TensorRT target cannot be without: what its parser reads, and what a build must stay within.
TENSORRT_NEEDS = (
    ("runtime", "tensorrt"),
    ("runtime", "workspace_mib"),
    ("device", "compute_capability"),
    ("device", "memory_gib"),
)
_OLDEST_TENSORRT = (8, 0)
# Keys whose text has a form, and an example of it.
_FORMS = MappingProxyType(
    {
        "runtime.tensorrt": (re.compile(r"[0-9]{1,3}(\.[0-9]{1,6}){1,4}"), "8.2.1"),
        "device.compute_capability": (re.compile(r"[0-9]{1,2}\.[0-9]"), "5.3"),
    }
)
KINDS = MappingProxyType({str: "text", int: "a whole number", float: "a number", bool: "true or false"})
_MAY_BE_ZERO = frozenset({"device.dla_cores"})
_MOST = 10**9  # no number here comes near
_MOST_BYTES = 1 << 20
_MOST_SHOWN = 80  # characters of a wrong value


@dataclass(frozen=True)
class Fact:
    """A value and how far it is to be trusted: one of MARKS, or MEASURED."""

    value: Value
    mark: str
    note: str = ""


@dataclass(frozen=True)
class Target:
    """Where an artifact is going.

    Attributes:
        name: the file's name without its suffix.
        title: what a person calls it.
        family: which family of export forms suits its engine, `cpu` or `gpu`.
        engine: what runs there, `onnxruntime` or `tensorrt`.
        facts: every fact by `table.key`, as `onnx.opset` and `device.memory_gib`.
    """

    name: str
    title: str
    family: str
    engine: str
    facts: Mapping[str, Fact]

    def value(self, key: str) -> Value | None:
        """A fact's value by `table.key`; None where the profile does not say."""
        fact = self.facts.get(key)
        return None if fact is None else fact.value

    @property
    def opset(self) -> int:
        """The opset that its artifacts are written at."""
        return int(self.facts["onnx.opset"].value)

    @property
    def ir_version(self) -> int:
        """The ONNX IR version that its artifacts are written at."""
        return int(self.facts["onnx.ir_version"].value)

    @property
    def tensorrt(self) -> tuple[int, int] | None:
        """Major and minor version of TensorRT there, or the oldest that is expected; None without TensorRT."""
        version = self.value("runtime.tensorrt")
        if version is None:
            return None
        return _major_minor(str(version))

    @property
    def workspace_bytes(self) -> int | None:
        """The most that a build may use beside weights and tensors."""
        mebibytes = self.value("runtime.workspace_mib")
        return None if mebibytes is None else int(mebibytes) << 20

    @property
    def memory_bytes(self) -> int | None:
        """The device's whole memory; on a Jetson, CPU and GPU share it."""
        gibibytes = self.value("device.memory_gib")
        return None if gibibytes is None else int(float(gibibytes) * (1 << 30))


def target_names() -> list[str]:
    return sorted(file.stem for file in _folder().glob("*.toml"))


def load_target(name: str) -> Target:
    """Reads a target by name, or a profile of the user's own by its path (`board.toml`, `./board.toml`).

    Raises:
        BadRequest: no such target (the known ones are listed, nearest first),
            no such file, or a file that breaks the schema (file and key are
            named).
    """
    if name.lower().endswith(".toml"):
        return target_from_toml(Path(name))
    names = target_names()
    if name not in names:
        raise BadRequest(
            f"Unknown target {name!r}. {known_names(name, names)} "
            "A profile of your own is given by its path, as board.toml."
        )
    return target_from_toml(_folder() / f"{name}.toml")


def target_from_toml(file: Path) -> Target:
    """Reads one profile; `load_target` says what is raised."""
    table = _table_of(file)
    _check_keys(file, table, {"title", "family", "engine", *SCHEMA})
    facts: dict[str, Fact] = {}
    for name, schema in SCHEMA.items():
        section = table.get(name, {})
        if not isinstance(section, dict):
            raise BadRequest(f"{file}: key {name} {_found(section)}, must be a table.")
        _check_keys(file, section, set(schema), f"{name}.")
        facts.update({f"{name}.{key}": _fact(file, f"{name}.{key}", section[key], schema[key].kind) for key in section})
    target = Target(
        name=file.stem,
        title=_text(file, table, "title"),
        family=_choice(file, table, "family", FAMILIES),
        engine=_choice(file, table, "engine", RUNTIMES),
        facts=MappingProxyType(facts),
    )
    _check_needs(file, target)
    return target


def _folder() -> Path:
    return Path(__file__).resolve().parent / "targets"


def _table_of(file: Path) -> dict[str, Any]:
    try:
        if file.exists() and not file.is_file():
            raise BadRequest(f"Target profile {file} is not a file. A target is one TOML file.")
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        bundled = file.name[: -len(".toml")]
        hint = f" The target of that name is given without .toml: {bundled}." if bundled in target_names() else ""
        reason = getattr(error, "strerror", None) or error
        raise BadRequest(f"Target profile {file} cannot be read: {reason}.{hint}") from error
    if len(content) > _MOST_BYTES:
        raise BadRequest(f"{file}: not a target profile: it has more than {_MOST_BYTES:,} bytes.")
    try:
        table: dict[str, Any] = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # of the parser, of the text, of a number too long to be read
        raise BadRequest(f"{file}: not a TOML file: {error}.") from error
    return table


def _check_keys(file: Path, table: Mapping[str, Any], known: set[str], prefix: str = "") -> None:
    for key in table:
        if key not in known:
            raise BadRequest(f"{file}: unknown key {prefix}{key}. {known_names(key, known)}")


def _fact(file: Path, key: str, table: object, kind: type) -> Fact:
    """One `key = { value = ..., mark = "...", note = "..." }`."""
    if not isinstance(table, dict):
        raise BadRequest(
            f"{file}: key {key} {_found(table)}, must say how far it is to be trusted, "
            f'as {{ value = ..., mark = "recalled" }}; marks are {", ".join(MARKS)}.'
        )
    _check_keys(file, table, {"value", "mark", "note"}, f"{key}.")
    value: Any = table.get("value")
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise BadRequest(f"{file}: key {key}.value {_found(value)}, must be {KINDS[kind]}.")
    _check_value(file, key, value)
    note = table.get("note", "")
    if not isinstance(note, str) or not (note.isprintable() or not note):
        raise BadRequest(f"{file}: key {key}.note {_found(note)}, must be text of one line.")
    return Fact(value, _choice(file, table, "mark", MARKS, f"{key}."), note)


def _check_value(file: Path, key: str, value: Any) -> None:
    """Raises BadRequest for a value of the right type that cannot be meant."""
    problem = None
    if isinstance(value, str):
        form, example = _FORMS.get(key, (None, ""))
        if not value.isprintable() or not value.strip():
            problem = "text of one line"
        elif form is not None and not form.fullmatch(value):
            problem = f"a version as {example}"
        elif key == "runtime.tensorrt" and _major_minor(value) < _OLDEST_TENSORRT:
            problem = f"{'.'.join(map(str, _OLDEST_TENSORRT))} or newer: nothing is known here of older ones"
    elif not isinstance(value, bool) and not (0 < value <= _MOST or (value == 0 and key in _MAY_BE_ZERO)):
        problem = f"a number {'from' if key in _MAY_BE_ZERO else 'above'} 0 and up to {_MOST}"
    if problem:
        raise BadRequest(f"{file}: key {key}.value {_found(value)}, must be {problem}.")


def _major_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _check_needs(file: Path, target: Target) -> None:
    needed = [("onnx", "opset"), ("onnx", "ir_version"), *(TENSORRT_NEEDS if target.engine == "tensorrt" else ())]
    for table, key in needed:
        if f"{table}.{key}" not in target.facts:
            raise BadRequest(f"{file}: key {table}.{key} is missing; a target for {target.engine} needs it.")
    if target.engine != "tensorrt" and target.tensorrt is not None:
        raise BadRequest(f'{file}: key runtime.tensorrt is for targets with engine = "tensorrt", not {target.engine}.')


def _choice(file: Path, table: Mapping[str, Any], key: str, choices: tuple[str, ...], prefix: str = "") -> str:
    value = table.get(key)
    if value not in choices:
        raise BadRequest(f"{file}: key {prefix}{key} {_found(value)}, must be one of {', '.join(choices)}.")
    return str(value)


def _text(file: Path, table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise BadRequest(f"{file}: key {key} {_found(value)}, must be text of one line.")
    return value


def _found(value: object) -> str:
    if value is None:
        return "is missing"
    try:
        shown = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "is a number too long to be shown"
    return f"is {shown}" if len(shown) <= _MOST_SHOWN else f"is {shown[:_MOST_SHOWN]}..."
