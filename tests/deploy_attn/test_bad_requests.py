"""One clear message and the right exit code for each bad request, and nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deploy_attn import create
from deploy_attn.jetson.artifact import read_manifest
from tests.deploy_attn.command_line import SMALL, Cli, files_of


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cbma"], ["Unknown attention module 'cbma'", "Known: cbam,"]),
        (["se", "--shape", "1x64x56"], ["'1x64x56'", "BxCxHxW"]),
        (["se", "--shape", "1x64x-5x5"], ["BxCxHxW"]),
        (["se", "--shape", "axbxcxd"], ["BxCxHxW"]),
        (["se", "--shape", "1x64x0x5"], ["at least 1"]),
        (["se", "--shape", "1x64x999999x999999"], ["values; at most"]),
        (["se", "--shape", "1x" + "9" * 5000 + "x5x5"], ["is not a shape", "BxCxHxW"]),
        (["eca", "--set", "gamma=nan"], ["gamma", "at least 0.1"]),
        (["eca", "--set", "gamma=1e-9"], ["gamma", "at least 0.1"]),
        (["cbam", "--set", "kernel_size=99999999"], ["at most 255"]),
        (["se", "--set", "ratio=8", "--set", "reduction=4"], ["reduction of se is given twice"]),
        (["se", "--checkpoint", "."], ["a folder, not a file"]),
        (["se", "--input", "."], ["a folder, not a file"]),
        (["net.py:instance", "--shape", "1x3x8x8"], ["is a module, not a factory"]),
        (["se", "--shape", "1x8x5x5"], ["channels >= reduction", "channels=8"]),
        (["cbam", "--channels", "4"], ["channels >= reduction"]),
        (["se", "--channels", "32", "--shape", "1x64x5x5"], ["--channels 32 contradicts 64"]),
        (["cbam", "--set", "kernel_size=4"], ["odd kernel_size"]),
        (["cbam", "--set", "reduction"], ["NAME=VALUE"]),
        (["cbam", "--set", "reduction=8", "--set", "reduction=4"], ["given twice"]),
        (["cbam", "--set", "reducton=8"], ["no option 'reducton'", "Options and their defaults: reduction=16"]),
        (["cbam", "--set", "channels=8"], ["--channels"]),
        (["se", "--target", "jetson-nan"], ["Unknown target 'jetson-nan'", "Known: jetson-nano,"]),
        (["se", "--checkpoint", "none.pt"], ["none.pt: no such file"]),
        (["se", "--input", "none.npy"], ["none.npy: no such file"]),
        (["se", "--input", "notes.txt"], ["no such file"]),
        (["none.py:build", "--shape", "1x3x8x8"], ["none.py: no such file"]),
        (["net.py:bulid", "--shape", "1x3x8x8"], ["no factory 'bulid'", "Known: build,"]),
        (["net.py", "--shape", "1x3x8x8"], ["file.py:factory", "net.py:build"]),
        (["net.py:build"], ["needs the shape"]),
        (["net.py:build", "--shape", "1x3x8x8", "--set", "reduction=8"], ["--set is for catalogue modules"]),
        (["net.py:number", "--shape", "1x3x8x8"], ["returned int", "torch.nn.Module"]),
        (["net.py:leaves", "--shape", "1x3x8x8"], ["net.py:leaves raised", "SystemExit: bye"]),
        (["net.py:build", "--shape", "1x3x9x8"], ["does not run on an input of 1x3x9x8", "mat1 and mat2"]),
        (["net.py:build", "--shape", "1x4x8x8"], ["does not run on an input of 1x4x8x8", "in forward"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and " " not in value[0] else None,
)
def test_a_bad_request_is_one_clear_message(cli: Cli, network: Path, arguments: list[str], words: list[str]) -> None:
    done = cli("export", *arguments)
    assert done.exit_code == 2, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr
    assert done.stdout.replace("the network talks\n", "") == ""
    assert done.stderr.startswith("deploy-attn: ")
    assert done.stderr.count("deploy-attn: ") == 1
    assert list(network.parent.iterdir()) in ([network], sorted([network, network.parent / "__pycache__"]))


def test_a_factory_that_raises_shows_its_own_traceback_and_not_ours(cli: Cli, network: Path) -> None:
    done = cli("export", "net.py:broken", "--shape", "1x3x8x8")
    assert done.exit_code == 2
    assert "NameError: name 'missing_name' is not defined" in done.stderr
    assert "return missing_name" in done.stderr
    assert "sources.py" not in done.stderr


def test_a_file_that_does_not_load_shows_its_own_traceback(cli: Cli, in_folder: Path) -> None:
    (in_folder / "bad.py").write_text("def build(:\n", encoding="utf-8")
    done = cli("export", "bad.py:build", "--shape", "1x3x8x8")
    assert done.exit_code == 2
    assert "SyntaxError" in done.stderr
    assert "sources.py" not in done.stderr


def test_bad_requests_answer_in_json_too(cli: Cli, in_folder: Path) -> None:
    done = cli("export", "cbma", "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["exit_code"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "se", "--seed", "-1"],
        ["export", "se", "--channels", "0"],
        ["export", "se", "--channels", "x"],
        ["export", "se", "--fp8"],
        ["export"],
        ["verify"],
        ["exprot", "se"],
    ],
    ids=" ".join,
)
def test_the_parser_refuses_in_one_line_and_in_json(cli: Cli, in_folder: Path, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("deploy-attn: ")
    assert len(done.stderr.splitlines()) <= 2
    assert json.loads(cli(*arguments, "--json").stdout)["exit_code"] == 2
    assert list(in_folder.iterdir()) == []


def test_an_existing_folder_is_kept_without_force(cli: Cli, in_folder: Path) -> None:
    assert cli("export", "se", *SMALL, "-o", "a").exit_code == 0
    before = files_of(in_folder / "a")
    done = cli("export", "eca", *SMALL, "-o", "a")
    assert done.exit_code == 2
    assert "--force" in done.stderr
    assert files_of(in_folder / "a") == before
    assert cli("export", "eca", *SMALL, "-o", "a", "--force").exit_code == 0
    assert read_manifest("a")["name"] == "eca"


def test_force_never_replaces_what_no_export_wrote(cli: Cli, in_folder: Path) -> None:
    (in_folder / "thesis").mkdir()
    (in_folder / "thesis" / "chapter.tex").write_text("years of work", encoding="utf-8")
    done = cli("export", "se", *SMALL, "-o", "thesis", "--force")
    assert done.exit_code == 2
    assert "chapter.tex" in done.stderr
    assert (in_folder / "thesis" / "chapter.tex").read_text(encoding="utf-8") == "years of work"


def test_an_unwritable_place_is_said_at_once(cli: Cli, in_folder: Path) -> None:
    (in_folder / "file").write_text("", encoding="utf-8")
    done = cli("export", "se", *SMALL, "-o", "file/a")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr
    done = cli("export", "se", *SMALL, "-o", "/proc/artifact")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


def test_a_checkpoint_that_does_not_match_is_listed_whole(cli: Cli, in_folder: Path) -> None:
    state = create("se", channels=32, reduction=8).state_dict()
    state["extra"] = state.pop("fc.0.weight")
    torch.save(state, "se.pt")
    done = cli("export", "se", *SMALL, "--checkpoint", "se.pt")
    assert done.exit_code == 2
    assert "missing: fc.0.weight" in done.stderr
    assert "unexpected: extra" in done.stderr
    assert "shape: fc.2.weight is (32, 4), the module has (32, 2)" in done.stderr


def test_a_checkpoint_with_nan_names_the_tensor(cli: Cli, in_folder: Path) -> None:
    state = create("se", channels=32).state_dict()
    state["fc.2.weight"][3, 1] = float("nan")
    torch.save(state, "se.pt")
    done = cli("export", "se", *SMALL, "--checkpoint", "se.pt")
    assert done.exit_code == 2
    assert "NaN or Inf in: fc.2.weight" in done.stderr


class _Touches:
    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return (open, (self.file, "w"))


def test_a_pickle_that_would_run_code_is_refused(cli: Cli, in_folder: Path) -> None:
    torch.save({"fc.0.weight": _Touches("owned")}, "evil.pt")
    done = cli("export", "se", *SMALL, "--checkpoint", "evil.pt")
    assert done.exit_code == 2
    assert "refused" in done.stderr
    assert "run code" in done.stderr
    assert not (in_folder / "owned").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere is not an artifact"]),
        ([".", "--engine", "tensorrtx"], ["Unknown engine 'tensorrtx'", "Known: tensorrt, tensorrt-rtx"]),
    ],
)
def test_verify_refuses_what_it_cannot_check(cli: Cli, in_folder: Path, arguments: list[str], words: list[str]) -> None:
    done = cli("verify", *arguments)
    assert done.exit_code == 2
    for word in words:
        assert word in done.stderr
