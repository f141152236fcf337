"""Target profiles: each bundled one agrees with what is known, and a wrong one is refused by file and key."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from deploy_attn.engines.target import (
    FAMILIES,
    MARKS,
    SCHEMA,
    TENSORRT_NEEDS,
    Target,
    load_target,
    target_from_toml,
    target_names,
)
from deploy_attn.jetson.errors import BadRequest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Target -> TensorRT, opset, IR version, compute capability, memory in GiB.
BUNDLED: Mapping[str, tuple[tuple[int, int] | None, int, int, str | None, int | None]] = MappingProxyType(
    {
        "jetson-nano": ((8, 2), 13, 7, "5.3", 4),
        "jetson-nano-jetpack-4.6.0": ((8, 0), 13, 7, "5.3", 4),
        "jetson-tx2": ((8, 2), 13, 7, "6.2", 8),
        "jetson-xavier-nx": ((8, 5), 13, 7, "7.2", 8),
        "jetson-agx-xavier": ((8, 5), 13, 7, "7.2", 32),
        "jetson-orin-nano": ((10, 3), 17, 8, "8.7", 8),
        "jetson-orin-nx": ((10, 3), 17, 8, "8.7", 16),
        "jetson-agx-orin": ((10, 3), 17, 8, "8.7", 64),
        "jetson-thor": ((10, 13), 17, 8, "11.0", 128),
        "rtx-2080-ti": ((10, 3), 17, 8, "7.5", 11),
        "rtx-3090": ((10, 3), 17, 8, "8.6", 24),
        "rtx-4090": ((10, 3), 17, 8, "8.9", 24),
        "rtx-5090": ((10, 8), 17, 8, "12.0", 32),
        "t4": ((10, 3), 17, 8, "7.5", 16),
        "a100": ((10, 3), 17, 8, "8.0", 40),
        "h100": ((10, 3), 17, 8, "9.0", 80),
        "h200": ((10, 3), 17, 8, "9.0", 141),
        "b200": ((10, 8), 17, 8, "10.0", 180),
        "onnxruntime-cpu": (None, 17, 8, None, None),
        "onnxruntime-cuda": (None, 17, 8, None, None),
    }
)
# First TensorRT of a range, the newest opset that its parser is documented to take, the IR it was built against.
PARSERS = (((8, 0), 13, 7), ((8, 4), 17, 8), ((9, 0), 19, 9), ((10, 0), 20, 10), ((10, 6), 22, 10), ((10, 11), 23, 11))

WHOLE = """
title = "A board"
family = "gpu"
engine = "tensorrt"
[onnx]
opset = { value = 13, mark = "verified" }
ir_version = { value = 7, mark = "verified" }
[runtime]
tensorrt = { value = "8.2.1", mark = "third party", note = "of a forum" }
workspace_mib = { value = 256, mark = "third party" }
[device]
compute_capability = { value = "5.3", mark = "verified" }
memory_gib = { value = 4, mark = "recalled" }
bandwidth_gb_per_s = { value = 25.6, mark = "third party" }
int8 = { value = false, mark = "derived" }
dla_cores = { value = 0, mark = "recalled" }
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "board.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refusal(file: Path) -> str:
    """What a profile is refused with, after the file's name."""
    with pytest.raises(BadRequest) as raised:
        target_from_toml(file)
    assert raised.value.exit_code == 2
    assert str(file) in str(raised.value)
    return str(raised.value).partition(str(file))[2]


def test_the_bundled_targets_are_those_of_the_table() -> None:
    assert target_names() == sorted(BUNDLED)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_target_says_what_the_table_says(name: str) -> None:
    target = load_target(name)
    compute_capability, memory = target.value("device.compute_capability"), target.value("device.memory_gib")
    assert (target.tensorrt, target.opset, target.ir_version, compute_capability, memory) == BUNDLED[name]
    assert target.name == name
    assert target.family == ("cpu" if name == "onnxruntime-cpu" else "gpu")
    assert target.engine == ("onnxruntime" if target.tensorrt is None else "tensorrt")


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_target_s_opset_is_one_that_its_parser_takes(name: str) -> None:
    target = load_target(name)
    assert helper.find_min_ir_version_for([helper.make_opsetid("", target.opset)]) == target.ir_version
    if target.tensorrt is not None:
        opset, ir_version = next((opset, ir) for first, opset, ir in reversed(PARSERS) if first <= target.tensorrt)
        assert target.opset <= opset
        assert target.ir_version <= ir_version


@pytest.mark.parametrize("name", BUNDLED)
def test_every_value_of_a_bundled_target_has_a_mark(name: str) -> None:
    target = load_target(name)
    assert {fact.mark for fact in target.facts.values()} <= set(MARKS)
    known = {f"{table}.{key}": kind for table, keys in SCHEMA.items() for key, (kind, _) in keys.items()}
    assert set(target.facts) <= set(known)
    if target.memory_bytes is not None and target.workspace_bytes is not None:
        assert target.workspace_bytes <= target.memory_bytes / 2


@pytest.mark.parametrize("name", BUNDLED)
def test_a_derived_peak_is_what_cores_and_clock_give(name: str) -> None:
    target = load_target(name)
    for key, at_once in (("device.peak_fp32_tflops", 2), ("device.peak_fp16_tflops", 4)):
        fact = target.facts.get(key)
        if fact is not None and fact.mark == "derived":
            cores, megahertz = target.value("device.cuda_cores"), target.value("device.gpu_mhz")
            assert isinstance(cores, int)
            assert isinstance(megahertz, int | float)
            assert float(fact.value) == pytest.approx(at_once * cores * megahertz / 1e6, rel=0.006)


def marks(name: str) -> dict[str, str]:
    return {key: fact.mark for key, fact in load_target(name).facts.items()}


def test_what_nothing_confirms_is_not_marked_as_verified() -> None:
    """Source code tells the compute capabilities of Jetsons; no source that was read tells a figure of a device."""
    for name in BUNDLED:
        for key, mark in marks(name).items():
            if key.startswith("device.") and (name, key) != ("jetson-thor", "device.dla_cores"):
                tegra = name.startswith("jetson-") and key == "device.compute_capability"
                assert (mark == "verified") is tegra, (name, key)


@pytest.mark.parametrize(
    ("name", "key", "value", "mark"),
    [
        ("jetson-nano", "runtime.tensorrt", "8.2.1", "third party"),
        ("jetson-nano", "runtime.workspace_mib", 256, "third party"),
        ("jetson-nano", "device.bandwidth_gb_per_s", 25.6, "third party"),
        ("jetson-nano", "device.int8", False, "third party"),
        ("jetson-nano-jetpack-4.6.0", "runtime.tensorrt", "8.0.1", "third party"),
        ("jetson-nano-jetpack-4.6.0", "runtime.l4t", "32.6.1", "verified"),
        ("jetson-tx2", "device.peak_fp16_tflops", 1.33, "third party"),
        ("jetson-tx2", "device.int8", False, "third party"),
        ("jetson-xavier-nx", "device.peak_fp16_tflops", 1.69, "third party"),
        ("jetson-xavier-nx", "runtime.tensorrt", "8.5.2", "third party"),
        ("jetson-agx-xavier", "device.bandwidth_gb_per_s", 136.5, "recalled"),
        ("jetson-orin-nano", "device.dla_cores", 0, "recalled"),
        ("jetson-orin-nx", "runtime.tensorrt", "10.3.0", "verified"),
        ("jetson-agx-orin", "device.peak_fp32_tflops", 5.33, "derived"),
        ("jetson-thor", "runtime.tensorrt", "10.13", "recalled"),
        ("jetson-thor", "device.memory_gib", 128, "third party"),
        ("jetson-thor", "device.peak_fp16_tensor_tflops", 258.5, "third party"),
        ("jetson-thor", "device.dla_cores", 0, "verified"),
        ("rtx-5090", "runtime.tensorrt", "10.8", "recalled"),
        ("h100", "device.bandwidth_gb_per_s", 3350, "recalled"),
    ],
)
def test_a_value_has_the_mark_of_its_source(name: str, key: str, value: object, mark: str) -> None:
    fact = load_target(name).facts[key]
    assert (fact.value, fact.mark) == (value, mark)


def test_where_the_parser_lacks_layer_normalization_the_opset_is_below_the_one_that_brings_it() -> None:
    for name in BUNDLED:
        target = load_target(name)
        if target.tensorrt is not None and target.tensorrt < (8, 6):
            assert target.opset < 17


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("jetson_nano", "jetson-nano"), ("Jetson-Nano", "jetson-nano"), ("onnxruntime-gpu", "onnxruntime-cpu")],
)
def test_an_unknown_name_lists_the_known_ones_nearest_first(asked: str, nearest: str) -> None:
    with pytest.raises(BadRequest) as raised:
        load_target(asked)
    message = str(raised.value)
    assert repr(asked) in message
    assert f"Known: {nearest}" in message
    assert all(name in message for name in target_names())


@pytest.mark.parametrize("name", ["", ".", "/", "../targets/jetson-nano", "./board", "jetson-nano\n", ".tom", "a\0b"])
def test_what_does_not_end_in_toml_is_a_name_and_not_a_path(name: str) -> None:
    with pytest.raises(BadRequest, match="Unknown target"):
        load_target(name)


def test_a_whole_profile_is_read_as_written(tmp_path: Path) -> None:
    target = target_from_toml(write(tmp_path, WHOLE))
    assert (target.name, target.title, target.family, target.engine) == ("board", "A board", "gpu", "tensorrt")
    assert (target.opset, target.ir_version, target.tensorrt) == (13, 7, (8, 2))
    assert (target.workspace_bytes, target.memory_bytes) == (256 << 20, 4 << 30)
    found = {key: (fact.value, fact.mark, fact.note) for key, fact in target.facts.items()}
    assert found["runtime.tensorrt"] == ("8.2.1", "third party", "of a forum")
    assert found["device.int8"] == (False, "derived", "")
    assert target.value("device.peak_fp32_tflops") is None


def test_a_target_without_tensorrt_needs_no_device(tmp_path: Path) -> None:
    text = WHOLE.replace('engine = "tensorrt"', 'engine = "onnxruntime"').partition("[runtime]")[0]
    target = target_from_toml(write(tmp_path, text))
    assert (target.tensorrt, target.workspace_bytes, target.memory_bytes) == (None, None, None)


@pytest.mark.parametrize("spelled", ["board.toml", "./board.toml", "sub/../board.toml", "BOARD.TOML"])
def test_a_relative_path_is_read_from_the_current_folder(in_folder: Path, spelled: str) -> None:
    (in_folder / "sub").mkdir()
    (in_folder / Path(spelled).name).write_text(WHOLE, encoding="utf-8")
    assert load_target(spelled).title == "A board"


def test_an_absolute_path_and_a_link_are_read(tmp_path: Path) -> None:
    file = write(tmp_path, WHOLE)
    link = tmp_path / "mine.toml"
    link.symlink_to(file)
    assert load_target(str(file)).name == "board"
    assert load_target(str(link)).name == "mine"


def change(line: str, instead: str, key: str, name: str | None = None) -> Any:
    return pytest.param(line, instead, key, id=name or instead or f"without {line}")


OPSET = 'opset = { value = 13, mark = "verified" }'
TENSORRT = 'tensorrt = { value = "8.2.1", mark = "third party", note = "of a forum" }'
MEMORY = 'memory_gib = { value = 4, mark = "recalled" }'


@pytest.mark.parametrize(
    ("line", "instead", "key"),
    [
        change('title = "A board"', "", "key title is missing"),
        change('title = "A board"', "title = 7", "key title is 7"),
        change('title = "A board"', 'title = " "', "key title is ' '"),
        change('title = "A board"', 'title = "A\\u001bboard"', "key title is"),
        change('family = "gpu"', "", "key family is missing"),
        change('family = "gpu"', 'family = "tpu"', "key family is 'tpu', must be one of cpu, gpu"),
        change('family = "gpu"', 'family = ["gpu"]', "key family is ['gpu']"),
        change('family = "gpu"', 'family = "gpu"\ncolour = "green"', "unknown key colour"),
        change('engine = "tensorrt"', "", "key engine is missing"),
        change('engine = "tensorrt"', 'engine = "TensorRT"', "must be one of onnxruntime, tensorrt"),
        change('engine = "tensorrt"', 'engine = "onnxruntime"', "key runtime.tensorrt is for targets with engine"),
        change("[device]", "[devices]", "unknown key devices"),
        change("[device]", "[[device]]", "key device is [{"),
        change("[onnx]", "onnx = 13\n[onnxx]", "key onnx"),
        change(OPSET, "", "key onnx.opset is missing"),
        change(OPSET, "opset = 13", "key onnx.opset is 13, must say how far it is to be trusted"),
        change(OPSET, "opset = [13]", "key onnx.opset is [13]"),
        change(OPSET, "opset = { value = 13 }", "key onnx.opset.mark is missing, must be one of verified"),
        change(OPSET, 'opset = { value = 13, mark = "sure" }', "key onnx.opset.mark is 'sure'"),
        change(OPSET, "opset = { value = 13, mark = true }", "key onnx.opset.mark is True"),
        change(OPSET, 'opset = { value = 13, mark = ["verified"] }', "key onnx.opset.mark is ['verified']"),
        change(OPSET, 'opset = { mark = "verified" }', "key onnx.opset.value is missing, must be a whole number"),
        change(OPSET, 'opset = { value = "13", mark = "verified" }', "key onnx.opset.value is '13'"),
        change(OPSET, 'opset = { value = 13.0, mark = "verified" }', "key onnx.opset.value is 13.0"),
        change(OPSET, 'opset = { value = true, mark = "verified" }', "key onnx.opset.value is True"),
        change(OPSET, 'opset = { value = -13, mark = "verified" }', "key onnx.opset.value is -13"),
        change(OPSET, 'opset = { value = 0, mark = "verified" }', "key onnx.opset.value is 0, must be a number above"),
        change(OPSET, f'opset = {{ value = 1{"0" * 400}, mark = "verified" }}', "key onnx.opset.value is 1", "googol"),
        change(OPSET, 'opset = { value = { value = 13 }, mark = "verified" }', "key onnx.opset.value is {'value': 13}"),
        change(OPSET, 'opset = { value = 1979-05-27, mark = "verified" }', "key onnx.opset.value is datetime"),
        change(OPSET, 'opset = { value = 13, mark = "verified", why = "x" }', "unknown key onnx.opset.why"),
        change(OPSET, 'opset = { value = 13, mark = "verified", note = 3 }', "key onnx.opset.note is 3"),
        change(OPSET, f"{OPSET}\nopsets = 14", "unknown key onnx.opsets"),
        change('ir_version = { value = 7, mark = "verified" }', "", "key onnx.ir_version is missing"),
        change(TENSORRT, "", "key runtime.tensorrt is missing; a target for tensorrt needs it"),
        change(TENSORRT, 'tensorrt = { value = 8.2, mark = "recalled" }', "key runtime.tensorrt.value is 8.2"),
        change(TENSORRT, 'tensorrt = { value = "8", mark = "recalled" }', "must be a version as 8.2.1"),
        change(TENSORRT, 'tensorrt = { value = "٨.٢", mark = "recalled" }', "must be a version as 8.2.1"),
        change(TENSORRT, 'tensorrt = { value = "8.2\\n", mark = "recalled" }', "key runtime.tensorrt.value"),
        change(TENSORRT, 'tensorrt = { value = "7.2.3", mark = "recalled" }', "must be 8.0 or newer"),
        change('workspace_mib = { value = 256, mark = "third party" }', "", "key runtime.workspace_mib is missing"),
        change(
            'value = "5.3"', 'value = "sm_53"', "device.compute_capability.value is 'sm_53', must be a version as 5.3"
        ),
        change('value = "5.3"', 'value = "5.3.1"', "device.compute_capability.value is '5.3.1'"),
        change(MEMORY, "", "key device.memory_gib is missing"),
        change(MEMORY, 'memory_gib = { value = inf, mark = "recalled" }', "key device.memory_gib.value is inf"),
        change(MEMORY, 'memory_gib = { value = nan, mark = "recalled" }', "key device.memory_gib.value is nan"),
        change(MEMORY, 'memory_gib = { value = -4.0, mark = "recalled" }', "key device.memory_gib.value is -4.0"),
        change(MEMORY, 'memory_gib = { value = true, mark = "recalled" }', "key device.memory_gib.value is True"),
        change(MEMORY, "memory = {gib = 4}", "unknown key device.memory. Known: memory_gib"),
        change("value = false", "value = 0", "key device.int8.value is 0, must be true or false"),
        change("dla_cores = { value = 0", "dla_cores = { value = -1", "must be a number from 0"),
    ],
)
def test_a_profile_that_breaks_the_schema_is_refused_by_file_and_key(
    tmp_path: Path, line: str, instead: str, key: str
) -> None:
    assert line in WHOLE
    assert key in refusal(write(tmp_path, WHOLE.replace(line, instead)))


@pytest.mark.parametrize("table", SCHEMA)
def test_a_table_that_is_no_table_is_named(tmp_path: Path, table: str) -> None:
    text = f'title = "A board"\nfamily = "gpu"\nengine = "tensorrt"\n{table} = 13\n'
    assert f"key {table} is 13, must be a table" in refusal(write(tmp_path, text))


@pytest.mark.parametrize(("table", "key"), [("onnx", "opset"), ("onnx", "ir_version"), *TENSORRT_NEEDS])
def test_every_key_that_is_needed_is_asked_for(tmp_path: Path, table: str, key: str) -> None:
    lines = [line for line in WHOLE.splitlines() if not line.startswith(f"{key} =")]
    assert f"key {table}.{key} is missing" in refusal(write(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    "content",
    [
        b"title = ",
        b"{}",
        b"\xff\xfe",
        b'title = "\xe9"',
        b"a = 1\na = 2\n",
        b"\x00",
        b"a = " + b"[" * 100_000,
        b"a = " + b"9" * 10_000,
        b"\x89PNG\r\n",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_not_toml_is_refused_by_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "board.toml"
    file.write_bytes(content)
    assert "not a TOML file" in refusal(file) or "unknown key a" in refusal(file)


def test_an_empty_file_lacks_a_title(tmp_path: Path) -> None:
    assert "key title is missing" in refusal(write(tmp_path, ""))


def test_a_number_too_long_to_be_shown_is_refused(tmp_path: Path) -> None:
    text = WHOLE.replace("value = 13", f"value = 0x{'f' * 9000}")
    assert "key onnx.opset.value is" in refusal(write(tmp_path, text))


def test_a_long_wrong_value_is_not_shown_whole(tmp_path: Path) -> None:
    assert len(refusal(write(tmp_path, WHOLE.replace("value = 13", f'value = "{"x" * 5000}"')))) < 200


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    assert "has more than" in refusal(write(tmp_path, WHOLE + "#" * (1 << 20)))


@pytest.mark.parametrize("name", ["absent.toml", "absent/board.toml", "board.toml/board.toml"])
def test_a_file_that_is_not_there_is_named(in_folder: Path, name: str) -> None:
    (in_folder / "board.toml").write_text(WHOLE, encoding="utf-8")
    with pytest.raises(BadRequest, match=f"profile {name} cannot be read: "):
        load_target(name)


def test_the_file_name_of_a_bundled_target_is_answered_with_its_name(in_folder: Path) -> None:
    with pytest.raises(BadRequest, match=r"is given without \.toml: jetson-nano\."):
        load_target("jetson-nano.toml")


def test_a_path_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(BadRequest, match="cannot be read"):
        load_target("a\0b.toml")


def test_a_folder_or_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("folder", "pipe"):
        assert "is not a file" in refusal(tmp_path / f"{name}.toml")


@given(st.text(max_size=60), st.sampled_from(sorted(WHOLE.splitlines()[1:])))
def test_whatever_stands_in_a_line_the_profile_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str, line: str
) -> None:
    file = tmp_path_factory.mktemp("any") / "board.toml"
    file.write_bytes(WHOLE.replace(line, text).encode("utf-8", "replace"))
    try:
        target = target_from_toml(file)
    except BadRequest as error:
        assert str(file) in str(error)
    else:
        _check_usable(target)


def _check_usable(target: Target) -> None:
    assert target.family in FAMILIES
    assert target.opset > 0
    assert target.tensorrt is None or target.tensorrt >= (8, 0)
    assert target.memory_bytes is None or math.isfinite(target.memory_bytes)


def test_the_profiles_are_plain_toml_that_the_listing_may_read_without_this_room() -> None:
    for name in BUNDLED:
        text = (Path(__file__).resolve().parents[2] / "engines" / "targets" / f"{name}.toml").read_text("utf-8")
        assert set(tomllib.loads(text)) <= {"title", "family", "engine", *SCHEMA}
