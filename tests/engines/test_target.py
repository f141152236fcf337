"""Target profiles: every bundled one loads, and a wrong one is refused by file and key."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from deploy_attn.engines.target import FAMILIES, load_target, target_from_toml, target_names
from deploy_attn.jetson.errors import BadRequest

WHOLE = """
title = "A board"
family = "gpu"
[onnx]
opset = 13
ir_version = 7
[device]
python = "3.6"
memory_gib = 4
bandwidth_gb_per_s = 25.6
int8 = false
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "board.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", target_names())
def test_a_bundled_target_loads_and_is_consistent(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert target.title
    assert target.family in FAMILIES
    assert target.device["engine"]
    assert helper.find_min_ir_version_for([helper.make_opsetid("", target.opset)]) <= target.ir_version


def test_the_jetson_nano_reads_opset_13_and_ir_7() -> None:
    target = load_target("jetson-nano")
    assert (target.opset, target.ir_version, target.family) == (13, 7, "gpu")
    assert (target.device["python"], target.device["int8"]) == ("3.6", False)


def test_onnxruntime_on_a_cpu_is_a_target_of_the_cpu_family() -> None:
    assert load_target("onnxruntime-cpu").family == "cpu"


def test_the_names_are_sorted() -> None:
    assert target_names() == sorted(target_names())
    assert {"jetson-nano", "onnxruntime-cpu"} <= set(target_names())


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("jetson_nano", "jetson-nano"), ("Jetson-Nano", "jetson-nano"), ("onnxruntime", "onnxruntime-cpu")],
)
def test_an_unknown_name_lists_the_known_ones_nearest_first(asked: str, nearest: str) -> None:
    with pytest.raises(BadRequest) as raised:
        load_target(asked)
    message = str(raised.value)
    assert repr(asked) in message
    assert f"Known: {nearest}" in message
    assert all(name in message for name in target_names())


@pytest.mark.parametrize("name", ["", "../targets/jetson-nano", "jetson-nano.toml"])
def test_a_name_is_not_a_path(name: str) -> None:
    with pytest.raises(BadRequest, match="Unknown target"):
        load_target(name)


def test_a_whole_profile_is_read_as_written(tmp_path: Path) -> None:
    target = target_from_toml(write(tmp_path, WHOLE))
    assert (target.name, target.title, target.family) == ("board", "A board", "gpu")
    assert (target.opset, target.ir_version) == (13, 7)
    assert target.device == {"python": "3.6", "memory_gib": 4, "bandwidth_gb_per_s": 25.6, "int8": False}


@pytest.mark.parametrize(
    ("line", "instead", "key"),
    [
        pytest.param('title = "A board"', "", "title", id="title missing"),
        pytest.param('title = "A board"', "title = 7", "title", id="title a number"),
        pytest.param('family = "gpu"', "", "family", id="family missing"),
        pytest.param('family = "gpu"', 'family = "tpu"', "family", id="family unknown"),
        pytest.param('family = "gpu"', 'family = ["gpu"]', "family", id="family a list"),
        pytest.param("opset = 13", "", "onnx.opset", id="opset missing"),
        pytest.param("opset = 13", 'opset = "13"', "onnx.opset", id="opset text"),
        pytest.param("opset = 13", "opset = 13.0", "onnx.opset", id="opset a float"),
        pytest.param("opset = 13", "opset = true", "onnx.opset", id="opset a bool"),
        pytest.param("ir_version = 7", "", "onnx.ir_version", id="IR missing"),
        pytest.param("ir_version = 7", "ir_version = false", "onnx.ir_version", id="IR a bool"),
        pytest.param("[device]", "[devices]", "devices", id="table unknown"),
        pytest.param('family = "gpu"', 'family = "gpu"\ncolour = "green"', "colour", id="key unknown"),
        pytest.param("ir_version = 7", "ir_version = 7\nopsets = 14", "opsets", id="key of onnx unknown"),
        pytest.param("memory_gib = 4", "memory = {gib = 4}", "memory", id="device fact a table"),
    ],
)
def test_a_profile_that_breaks_the_schema_is_refused_by_file_and_key(
    tmp_path: Path, line: str, instead: str, key: str
) -> None:
    assert line in WHOLE
    file = write(tmp_path, WHOLE.replace(line, instead))
    with pytest.raises(BadRequest) as raised:
        target_from_toml(file)
    assert raised.value.exit_code == 2
    assert str(file) in str(raised.value)
    assert key in str(raised.value).removeprefix(str(file))


@pytest.mark.parametrize("table", ["onnx", "device"])
def test_a_missing_table_is_named(tmp_path: Path, table: str) -> None:
    before, _, after = WHOLE.partition(f"[{table}]")
    file = write(tmp_path, before + (after[after.index("[") :] if "[" in after else ""))
    with pytest.raises(BadRequest, match=f"key {table} is missing"):
        target_from_toml(file)


def test_a_value_in_a_tables_place_is_shown(tmp_path: Path) -> None:
    file = write(tmp_path, 'title = "A board"\nfamily = "gpu"\nonnx = 13\n[device]\n')
    with pytest.raises(BadRequest, match="key onnx is 13"):
        target_from_toml(file)


def test_an_unknown_family_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"'tpu', must be one of cpu, gpu\."):
        target_from_toml(write(tmp_path, WHOLE.replace('"gpu"', '"tpu"')))


@pytest.mark.parametrize("content", [b"title = ", b"{}", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_what_is_not_toml_is_refused_by_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "board.toml"
    file.write_bytes(content)
    with pytest.raises(BadRequest, match="not a TOML file") as raised:
        target_from_toml(file)
    assert str(file) in str(raised.value)
