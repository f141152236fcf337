"""`deploy-attn lint MODEL --target T --fix`: exit codes, files, what a person and a program read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.deploy_attn.command_line import Cli
from tests.export.linting.graphs import model_of, node, one

_FIX = ("--target", "jetson-nano", "--fix")


@pytest.fixture
def model(in_folder: Path) -> Path:
    """A file that one fix mends."""
    onnx.save(one("ReduceMean", (2, 3, 4), {"axes": [1]}, opset=18, ir_version=10), in_folder / "m.onnx")
    return in_folder / "m.onnx"


def test_a_fixed_copy_lies_beside_the_model(cli: Cli, model: Path) -> None:
    before = model.read_bytes()
    done = cli("lint", "m.onnx", *_FIX)
    assert done.exit_code == 0
    assert "ReduceMean  [reduce-axes-input]: axes 1 given as an attribute" in done.stdout
    assert "opset 18 lowered to 13" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("PASS  m.fixed.onnx")
    assert onnx.load("m.fixed.onnx").opset_import[0].version == 13
    assert model.read_bytes() == before
    assert cli("lint", "m.fixed.onnx", "--target", "jetson-nano").exit_code == 0


def test_the_copy_goes_where_it_is_asked_to(cli: Cli, model: Path) -> None:
    assert cli("lint", model, *_FIX, "-o", "other.onnx").exit_code == 0
    assert {file.name for file in model.parent.iterdir()} == {"m.onnx", "other.onnx"}


def test_one_document_says_what_was_done(cli: Cli, model: Path) -> None:
    document = json.loads(cli("lint", "m.onnx", *_FIX, "--json").stdout)
    assert document["passed"] is True
    assert document["written"] == "m.fixed.onnx"
    assert {item["rule"] for item in document["fixed"]} == {"opset-above", "ir-above", "reduce-axes-input"}
    assert document["proof"]["trials"][0]["shapes"] == {"x": [2, 3, 4]}


def test_what_cannot_be_fixed_is_said_and_nothing_is_written(cli: Cli, in_folder: Path) -> None:
    nodes = [node("ReduceMean", "x axes", "m"), node("Det", "m", "y")]
    onnx.save(model_of(nodes, {"x": (2, 3, 4, 4)}, {"y": (2, 1)}, {"axes": [1]}, opset=18), "m.onnx")
    done = cli("lint", "m.onnx", *_FIX)
    assert done.exit_code == 1
    assert "Det" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("FAIL  nothing is written")
    assert [file.name for file in in_folder.iterdir()] == ["m.onnx"]


def test_what_needs_no_fix_is_left_alone(cli: Cli, in_folder: Path) -> None:
    onnx.save(one("Relu", (2, 3)), "m.onnx")
    done = cli("lint", "m.onnx", *_FIX)
    assert done.exit_code == 0
    assert "nothing is written" in done.stdout
    assert [file.name for file in in_folder.iterdir()] == ["m.onnx"]


def test_a_refusal_names_what_stands_in_the_way(cli: Cli, model: Path) -> None:
    model.with_name("m.fixed.onnx").write_text("mine")
    done = cli("lint", "m.onnx", *_FIX)
    assert done.exit_code == 2
    assert "m.fixed.onnx exists already" in done.stderr
    assert cli("lint", "m.onnx", *_FIX, "-o", "m.onnx", "--force").exit_code == 2
    assert cli("lint", "m.onnx", *_FIX, "-o", "none/there.onnx").exit_code == 2
    assert model.with_name("m.fixed.onnx").read_text() == "mine"


def test_an_artifact_is_exported_again_instead(cli: Cli, in_folder: Path) -> None:
    assert cli("export", "se", "--shape", "1x16x8x7", "-o", "art").exit_code == 0
    before = {file.name for file in (in_folder / "art").iterdir()}
    for path in ("art", "art/model.onnx"):
        done = cli("lint", path, *_FIX)
        assert done.exit_code == 2
        assert "Export it again" in done.stderr
    assert {file.name for file in (in_folder / "art").iterdir()} == before


def test_names_of_the_file_never_command_a_terminal(cli: Cli, in_folder: Path) -> None:
    only = node("Gelu", "x", "y", "\x1b[31mred")
    onnx.save(model_of(only, {"x": (2, 3)}, {"y": (2, 3)}, {"spare": np.zeros(1, np.float32)}, opset=20), "m.onnx")
    done = cli("lint", "m.onnx", *_FIX)
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert "red" in done.stdout
