"""A reader that leaves early and a disk that is full: no traceback, and the exit code of the verdict or 1."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

ANSWER = """
import sys
from deploy_attn.answering import answer, refuse

class Report:
    passed = {passed}
    def as_dict(self):
        return {{"text": "x" * 100000}}

def rich(report):
    from rich.console import Console
    for line in range(2000):
        Console().print("a line of a table")

def plain(report):
    sys.stdout.write("x" * 100000)

sys.exit(answer(Report, {show}, {as_json}))
"""
NET = '<ir_version: 7, opset_import: ["" : 13]> g (float[1,2] x) => ({}[1,2] y) {{ y = {} (x) }}'


def _run(stdout: int, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def nobody() -> Iterator[int]:
    """The end of a pipe that is written to, whose reader has left."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.fixture
def full() -> Iterator[int]:
    """A device that is full."""
    device = os.open("/dev/full", os.O_WRONLY)
    yield device
    os.close(device)


@pytest.mark.parametrize(("show", "as_json"), [("rich", False), ("plain", False), ("rich", True)])
@pytest.mark.parametrize("passed", [True, False])
def test_the_verdict_is_the_exit_code_though_nobody_reads(nobody: int, show: str, as_json: bool, passed: bool) -> None:
    code = ANSWER.format(passed=passed, show=show, as_json=as_json)
    assert _run(nobody, "-c", code) == (0 if passed else 1, "")


def test_a_show_that_leaves_for_another_reason_leaves(nobody: int) -> None:
    code = ANSWER.format(passed=True, show="lambda report: sys.exit(7)", as_json=False)
    assert _run(nobody, "-c", code) == (7, "")


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["lint", "--help"], ["list", "--json", "--json"]])
def test_a_text_that_nobody_reads_is_no_error(nobody: int, arguments: list[str]) -> None:
    assert _run(nobody, "-m", "deploy_attn", *arguments) == (0, "")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_lint_that_nobody_reads_keeps_its_verdict(nobody: int, tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "good.onnx").write_bytes(onnx.parser.parse_model(NET.format("float", "Relu")).SerializeToString())
    (tmp_path / "bad.onnx").write_bytes(onnx.parser.parse_model(NET.format("bool", "IsInf")).SerializeToString())
    for name, code in (("good.onnx", 0), ("bad.onnx", 1), ("none.onnx", 2)):
        lint = ["lint", str(tmp_path / name), "--target", "jetson-nano"]
        assert _run(nobody, "-m", "deploy_attn", *lint, *more)[0] == code


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json", "--json"], ["lint", "net.onnx"]])
def test_a_full_disk_is_said_in_one_line(full: int, in_folder: Path, arguments: list[str]) -> None:
    (in_folder / "net.onnx").write_bytes(onnx.parser.parse_model(NET.format("float", "Relu")).SerializeToString())
    more = ["--target", "jetson-nano"] if arguments[0] == "lint" else []
    code, said = _run(full, "-m", "deploy_attn", *arguments, *more)
    assert (code, said) == (1, "deploy-attn: The answer cannot be written: No space left on device.\n")


def test_a_table_on_a_full_disk_is_said_in_one_line(full: int) -> None:
    assert _run(full, "-m", "deploy_attn", "doctor") == (
        1,
        "deploy-attn: The answer cannot be written: No space left on device.\n",
    )


def test_the_program_ends_at_once_but_not_before_what_a_network_s_own_code_leaves_for_the_end(in_folder: Path) -> None:
    (in_folder / "net.py").write_text(
        "import atexit, os, pathlib\n"
        "atexit.register(lambda: pathlib.Path('left').write_text(os.environ['OMP_WAIT_POLICY']))\n"
        "def build():\n"
        "    return None\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "deploy_attn", "export", "net.py:build", "--shape", "1x3x8x8"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 2
    assert (in_folder / "left").read_text(encoding="utf-8") == "PASSIVE"
