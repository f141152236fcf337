"""`deploy-attn lint` as a user meets it: what is printed, exit codes, and that both ways into it answer alike."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest

from deploy_attn import cli as door
from deploy_attn.commands import run
from deploy_attn.export.linting import lint as linting
from tests.conftest import Finished
from tests.deploy_attn.command_line import Cli
from tests.export.linting.graphs import model_of, node, one

SHAPE = (1, 8, 8, 8)
PROGRAM = (sys.executable, "-m", "deploy_attn")


@pytest.fixture
def models(in_folder: Path) -> Path:
    """A clean model, one with a warning, one that is misread, and files that are no models."""
    files = {
        "clean.onnx": one("Relu", SHAPE),
        "risky.onnx": one("Relu", SHAPE, ir_version=9),
        "misread.onnx": one("ReduceMean", SHAPE, {"axes": [2, 3]}, opset=18, ir_version=8),
        "refused.onnx": one("Mod", SHAPE, {"b": [3.0]}),
        "empty.onnx": model_of([], {"x": SHAPE}, {"x": SHAPE}),
    }
    for name, model in files.items():
        (in_folder / name).write_bytes(model.SerializeToString())
    (in_folder / "text.onnx").write_text("hello", encoding="utf-8")
    (in_folder / "cut.onnx").write_bytes(files["clean.onnx"].SerializeToString()[:-9])
    (in_folder / "folder").mkdir()
    return in_folder


def test_a_clean_model_passes_in_few_lines(cli: Cli, models: Path) -> None:
    done = cli("lint", "clean.onnx", "--target", "jetson-nano")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "clean.onnx  for jetson-nano"
    assert lines[1] == "clean.onnx: opset 13, IR 7, 1 node"
    assert lines[-1] == "PASS  nothing found for jetson-nano"


def test_a_warning_passes_and_is_shown(cli: Cli, models: Path) -> None:
    done = cli("lint", "risky.onnx", "--target", "jetson-nano")
    assert done.exit_code == 0
    assert "risky (1)\n  the model  [ir-above]\n    why: " in done.stdout
    assert done.stdout.splitlines()[-1] == "PASS  no error, 1 warning for jetson-nano"


def test_a_misread_node_fails_is_named_first_and_has_a_remedy(cli: Cli, models: Path) -> None:
    done = cli("lint", "misread.onnx", "--target", "jetson-nano")
    assert done.exit_code == 1
    effects = [line.split(" (")[0] for line in done.stdout.splitlines() if line.endswith(")") and line[0] != " "]
    assert effects == ["wrong result", "risky"]
    assert "  ReduceMean  ReduceMean  [reduce-axes-input]\n    why: " in done.stdout
    assert "    do:  " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("FAIL  1 error, ")


def test_equal_findings_stand_together_and_long_lists_are_cut(cli: Cli, in_folder: Path) -> None:
    nodes = [node("Mish", f"t{i}", f"t{i + 1}", f"act{i}") for i in range(12)]
    (in_folder / "m.onnx").write_bytes(model_of(nodes, {"t0": SHAPE}, {"t12": SHAPE}).SerializeToString())
    done = cli("lint", "m.onnx", "--target", "jetson-nano")
    assert done.stdout.count("has no importer for Mish") == 1
    assert "act6, act7 and 4 more  Mish" in done.stdout
    assert "refused (12)" in done.stdout
    assert len(json.loads(cli("lint", "m.onnx", "--target", "jetson-nano", "--json").stdout)["findings"]) >= 12


def test_names_from_a_file_do_not_reach_the_terminal_as_commands(cli: Cli, in_folder: Path) -> None:
    model = one("Mish", SHAPE, name="\x1b[31mred\nline")
    (in_folder / "m.onnx").write_bytes(model.SerializeToString())
    done = cli("lint", "m.onnx", "--target", "jetson-nano")
    assert "\\x1b[31mred\\nline  Mish" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(("model", "exit_code"), [("clean.onnx", 0), ("risky.onnx", 0), ("refused.onnx", 1)])
def test_json_is_exactly_one_document(cli: Cli, models: Path, model: str, exit_code: int) -> None:
    done = cli("lint", model, "--target", "jetson-nano", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (exit_code, "")
    assert document["passed"] is (exit_code == 0)
    assert (document["model"], document["target"]) == (model, "jetson-nano")


BAD = [
    (("gone.onnx", "--target", "jetson-nano"), "does not exist"),
    (("text.onnx", "--target", "jetson-nano"), "not an ONNX file"),
    (("cut.onnx", "--target", "jetson-nano"), "cut short"),
    (("empty.onnx", "--target", "jetson-nano"), "no nodes"),
    (("folder", "--target", "jetson-nano"), "not an artifact"),
    (("clean.onnx", "--target", "nano"), "Unknown target 'nano'"),
    (("clean.onnx", "--target", "gone.toml"), "cannot be read"),
    (("clean.onnx", "--target", ""), "Unknown target ''"),
    (("", "--target", "jetson-nano"), "not an artifact"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_a_bad_request_is_one_message_and_exit_code_2(
    cli: Cli, models: Path, arguments: Sequence[str], words: str
) -> None:
    done = cli("lint", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.startswith("deploy-attn: ")
    assert len(done.stderr.splitlines()) == 1
    document = json.loads(cli("lint", *arguments, "--json").stdout)
    assert document == {"passed": False, "error": done.stderr[len("deploy-attn: ") : -1], "exit_code": 2}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("clean.onnx",),
        ("--target", "jetson-nano"),
        ("clean.onnx", "--target"),
        ("clean.onnx", "risky.onnx", "--target", "jetson-nano"),
        ("clean.onnx", "--target", "jetson-nano", "--no-such-option"),
        ("clean.onnx", "--target", "jetson-nano", "--force"),
        ("clean.onnx", "--target", "jetson-nano", "-o", "fixed.onnx"),
    ],
)
def test_what_is_no_request_is_left_to_the_parser_and_is_refused(
    cli: Cli, models: Path, arguments: Sequence[str]
) -> None:
    assert door._plain_lint(("lint", *arguments)) is None
    done = cli("lint", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


ORDERS = [
    ("{}", "--target", "jetson-nano"),
    ("--target", "jetson-nano", "{}"),
    ("{}", "--target=jetson-nano"),
    ("--target=jetson-nano", "{}"),
    ("--json", "{}", "--target", "jetson-nano"),
    ("{}", "--json", "--target=jetson-nano"),
    ("--target", "jetson-nano", "{}", "--json"),
]
FILES = ["clean.onnx", "risky.onnx", "misread.onnx", "refused.onnx", "text.onnx", "cut.onnx", "gone.onnx", "folder"]


def through_the_parser(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Finished:
    code = run(arguments)
    captured = capsys.readouterr()
    return Finished(code, captured.out, captured.err)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("order", ORDERS)
def test_the_door_answers_as_the_parser_does(
    cli: Cli, models: Path, capsys: pytest.CaptureFixture[str], order: Sequence[str], file: str
) -> None:
    arguments = ["lint", *(word.format(file) for word in order)]
    assert door._plain_lint(tuple(arguments)) is not None
    assert cli(*arguments) == through_the_parser(arguments, capsys)


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_and_a_lack_of_memory_are_said_alike(
    cli: Cli, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    arguments = ["lint", "clean.onnx", "--target", "jetson-nano", *(["--json"] if as_json else [])]
    for error, code in ((KeyboardInterrupt(), 128 + signal.SIGINT), (MemoryError("4 GiB"), 2)):

        def fail(*_: object, reason: BaseException = error) -> onnx.ModelProto:
            raise reason

        monkeypatch.setattr(linting, "read_model", fail)
        done = cli(*arguments)
        assert done.exit_code == code
        assert done == through_the_parser(arguments, capsys)


def program(*arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, check=False, env=environment)


def test_a_process_of_its_own_answers_and_loads_neither_parser_nor_rich(models: Path) -> None:
    done = program("lint", "misread.onnx", "--target", "jetson-nano")
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"FAIL  1 error" in done.stdout
    assert program("lint", "gone.onnx", "--target", "jetson-nano").returncode == 2
    code = (
        "import sys\nfrom deploy_attn.cli import main\n"
        "try: main(['lint', 'misread.onnx', '--target', 'jetson-nano'])\n"
        "except SystemExit as left: assert left.code == 1\n"
        "heavy = {'typer', 'click', 'rich', 'torch', 'onnxruntime', 'tensorrt', 'onnxsim'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (loaded.returncode, loaded.stderr) == (0, b"")


def test_a_terminal_that_lacks_a_letter_gets_its_escape(models: Path) -> None:
    (models / "m.onnx").write_bytes(one("Mish", SHAPE, name="größe").SerializeToString())
    done = program("lint", "m.onnx", "--target", "jetson-nano", encoding="ascii")
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"gr\\xf6\\xdfe  Mish" in done.stdout


def test_a_reader_that_leaves_is_no_error(models: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*PROGRAM, "lint", "clean.onnx", "--target", "jetson-nano"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
