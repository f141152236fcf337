"""The command line as a user meets it: results, exit codes, and one clear message for each bad request."""

from __future__ import annotations

import inspect
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from deploy_attn import create, verify
from deploy_attn.jetson.artifact import find_damage, read_manifest
from tests.conftest import Finished

Cli = Callable[..., Finished]
SMALL = ("--shape", "1x32x8x7")
NETWORK = """
import torch
from torch import nn
import deploy_attn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.attention = deploy_attn.create("s2", channels=16)
        self.gates = nn.ModuleList([deploy_attn.create("se", channels=16, reduction=4)])
        self.again = self.gates[0]
        self.head = nn.Linear(16 * 8 * 8, 4)

    def forward(self, x):
        x = self.gates[0](self.attention(self.stem(x)))
        print("the network talks")
        return self.head(self.again(x).flatten(1))

def build():
    return Net()

def broken():
    return missing_name

def number():
    return 4

def leaves():
    raise SystemExit("bye")

instance = nn.ReLU()
"""


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def network(in_folder: Path) -> Path:
    file = in_folder / "net.py"
    file.write_text(NETWORK, encoding="utf-8")
    return file


def test_export_writes_the_whole_artifact(cli: Cli, in_folder: Path) -> None:
    done = cli("export", "cbam", "--fp16", *SMALL)
    assert done.exit_code == 0, done.stderr
    assert "PASS" in done.stdout
    assert "pessimistic" in done.stdout
    assert "optimistic" in done.stdout
    assert sorted(file.name for file in (in_folder / "out" / "cbam").iterdir()) == [
        "certificate.json",
        "manifest.json",
        "model.fp16.onnx",
        "model.onnx",
        "precision_plan.json",
        "reference.npz",
        "verdict-onnxruntime.json",
    ]


def test_without_fp16_there_is_one_graph(cli: Cli, in_folder: Path) -> None:
    assert cli("export", "eca", *SMALL, "-o", "a").exit_code == 0
    assert not (in_folder / "a" / "model.fp16.onnx").exists()
    assert read_manifest("a")["precision"] == "fp32"


@pytest.mark.parametrize(("target", "opset", "ir_version"), [("onnxruntime-cpu", 17, 8), ("jetson-nano", 13, 7)])
def test_every_graph_has_the_targets_opset_and_ir(
    cli: Cli, in_folder: Path, target: str, opset: int, ir_version: int
) -> None:
    assert cli("export", "s2", "--fp16", "--target", target, *SMALL, "-o", "a").exit_code == 0
    for name in ("model.onnx", "model.fp16.onnx"):
        model = onnx.load(in_folder / "a" / name)
        assert [(item.domain, item.version) for item in model.opset_import] == [("", opset)]
        assert model.ir_version == ir_version


def test_json_is_one_document_and_the_rest_goes_to_stderr(cli: Cli, network: Path) -> None:
    done = cli("export", f"{network}:build", "--shape", "2x3x8x8", "--fp16", "--json", "-o", "a")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] is True
    assert report["verdict"]["checks"]
    assert "the network talks" in done.stderr


def test_a_network_has_each_attention_replaced_once_under_a_certificate(cli: Cli, network: Path) -> None:
    done = cli("export", "net.py:build", "--shape", "2x3x8x8", "--json", "-o", "a")
    findings = json.loads(done.stdout)["findings"]
    assert [(finding["recognised_as"], finding["paths"]) for finding in findings] == [
        ("s2", ["attention"]),
        ("se", ["gates.0", "again"]),
    ]
    assert all(finding["replaced"] and finding["certificate"]["proven"] for finding in findings)
    names = [node.name for node in onnx.load("a/model.onnx").graph.node]
    assert any(name.startswith("/attention/") for name in names)


def test_a_dynamic_batch_takes_any_batch(cli: Cli, in_folder: Path) -> None:
    assert cli("export", "s2", "--fp16", "--dynamic-batch", *SMALL, "-o", "a").exit_code == 0
    dimension = onnx.load("a/model.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert dimension.dim_param == "batch"
    assert "larger_batch" in read_manifest("a")["cases"]


def test_module_options_reach_the_module(cli: Cli, in_folder: Path) -> None:
    done = cli("export", "cbam", *SMALL, "--set", "reduction=8", "--set", "kernel_size=3", "-o", "a")
    assert done.exit_code == 0
    weights = {tensor.name: tuple(tensor.dims) for tensor in onnx.load("a/model.onnx").graph.initializer}
    assert (4, 32, 1, 1) in weights.values()
    assert (1, 2, 3, 3) in weights.values()


def test_the_seed_decides_weights_and_inputs(cli: Cli, in_folder: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert cli("export", "se", "--fp16", *SMALL, "--seed", seed, "-o", folder).exit_code == 0
    hashes = {folder: read_manifest(folder)["files"] for folder in "abc"}
    assert hashes["a"]["model.onnx"] == hashes["b"]["model.onnx"]
    assert hashes["a"]["model.onnx"] != hashes["c"]["model.onnx"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".npy"])
def test_the_parity_input_may_be_a_file(cli: Cli, in_folder: Path, suffix: str) -> None:
    file = in_folder / f"input{suffix}"
    pixels = np.random.RandomState(0).randint(0, 255, (20, 30, 3)).astype(np.uint8)
    if suffix == ".npy":
        np.save(file, np.random.RandomState(0).standard_normal((3, 32, 8, 7)))
    else:
        Image.fromarray(pixels).save(file)
    shape = () if suffix == ".npy" else SMALL
    assert cli("export", "cbam", "--fp16", "--input", file, *shape, "-o", "a").exit_code == 0
    manifest = read_manifest("a")
    assert manifest["cases"] == ["file"]
    assert manifest["input"]["shape"] == [3 if suffix == ".npy" else 1, 32, 8, 7]
    assert manifest["input"]["file"]["file"] == file.name


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_gives_the_weights(cli: Cli, in_folder: Path, suffix: str) -> None:
    import safetensors.torch

    state = create("se", channels=32).state_dict()
    file = in_folder / f"se{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    else:
        safetensors.torch.save_file(state, file)
    assert cli("export", "se", "--checkpoint", file, *SMALL, "-o", "a").exit_code == 0
    stored = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load("a/model.onnx").graph.initializer]
    wanted = state["fc.0.weight"].numpy()
    assert any(array.size == wanted.size and np.array_equal(array.reshape(wanted.shape), wanted) for array in stored)


def test_verify_repeats_the_verdict_from_the_files_alone(cli: Cli, in_folder: Path) -> None:
    assert cli("export", "cbam", "--fp16", *SMALL, "-o", "a").exit_code == 0
    shutil.move("a", "elsewhere")
    done = cli("verify", "elsewhere", "--engine", "onnxruntime", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["passed"] is True
    assert "PASS" in cli("verify", "elsewhere").stdout


@pytest.mark.parametrize(
    "file",
    ["model.onnx", "model.fp16.onnx", "reference.npz", "precision_plan.json", "certificate.json", "manifest.json"],
)
def test_verify_names_the_file_that_was_tampered_with(cli: Cli, in_folder: Path, file: str) -> None:
    assert cli("export", "se", "--fp16", *SMALL, "-o", "a").exit_code == 0
    target = in_folder / "a" / file
    content = bytearray(target.read_bytes())
    if file == "manifest.json":
        content = bytearray(content.replace(b'"rms_relative": 1e-05', b'"rms_relative": 1e+05'))
    else:
        content[len(content) // 2] ^= 1
    target.write_bytes(bytes(content))
    done = cli("verify", "a")
    assert done.exit_code == 1
    assert f"  {file}: changed" in done.stderr
    assert done.stderr.count(": changed") == 1


def test_verify_fails_a_graph_that_is_wrong(cli: Cli, in_folder: Path) -> None:
    """A wrong graph under right hashes: what a broken exporter would have written."""
    from deploy_attn.export.artifact import write_artifact

    assert cli("export", "se", *SMALL, "-o", "a").exit_code == 0
    model = onnx.load("a/model.onnx")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 3, tensor.name))
    contents = files_of(in_folder / "a")
    manifest = json.loads(contents.pop("manifest.json"))
    contents.pop("verdict-onnxruntime.json")
    (in_folder / "b").mkdir()
    write_artifact(in_folder / "b", {**contents, "model.onnx": model.SerializeToString()}, manifest)
    done = cli("verify", "b")
    assert done.exit_code == 1
    assert "FAIL" in done.stdout
    assert "worst element" in done.stdout


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
        (["cbam", "--set", "reducton=8"], ["no option 'reducton'", "Options: reduction=16"]),
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
        ([".", "--engine", "tensorrtx"], ["Unknown engine 'tensorrtx'", "Known: onnxruntime"]),
    ],
)
def test_verify_refuses_what_it_cannot_check(cli: Cli, in_folder: Path, arguments: list[str], words: list[str]) -> None:
    done = cli("verify", *arguments)
    assert done.exit_code == 2
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda sent: sent.name)
@pytest.mark.parametrize("moment_s", [0.4, 1.3, 1.9, 2.4])
def test_a_kill_leaves_the_old_artifact_or_the_new_one(
    cli: Cli, in_folder: Path, sent: signal.Signals, moment_s: float
) -> None:
    assert cli("export", "se", *SMALL, "-o", "a").exit_code == 0
    command = [sys.executable, "-m", "deploy_attn", "export", "eca", "--fp16", *SMALL, "-o", "a", "--force"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(moment_s)
        process.send_signal(sent)
        process.wait(timeout=60)
    assert find_damage("a", read_manifest("a")) == []
    assert verify("a").passed
    if sent is not signal.SIGKILL:
        assert [file.name for file in in_folder.iterdir()] == ["a"]
    assert cli("export", "se", *SMALL, "-o", "a", "--force").exit_code == 0
    assert [file.name for file in in_folder.iterdir()] == ["a"]


def test_list_shows_every_module_and_its_options(cli: Cli) -> None:
    done = cli("list")
    entries = json.loads(cli("list", "--json").stdout)
    assert done.exit_code == 0
    assert len(entries) == 6
    for entry in entries:
        row = next(line for line in done.stdout.splitlines() if line.startswith(f"{entry['name']} "))
        assert entry["title"] in row
        assert str(entry["year"]) in row
        assert entry["arxiv"] in row
        for option in entry["options"]:
            assert f"{option['name']}={option['default']}" in row
        for constraint in entry["constraints"]:
            assert constraint in row


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["--version"]])
def test_the_door_answers(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.exit_code == 0
    assert done.stdout.strip()


def test_the_overview_names_the_commands_that_there_are(cli: Cli) -> None:
    from deploy_attn.commands import app
    from deploy_attn.overview import COMMANDS

    assert {command.name for command in app.registered_commands} == set(COMMANDS)
    for command in COMMANDS:
        assert f"\n  {command} " in cli("--help").stdout
        assert cli(command, "--help").exit_code == 0


def test_the_commands_default_target_is_the_apis() -> None:
    from deploy_attn.commands import export
    from deploy_attn.request import DEFAULT_TARGET

    assert inspect.signature(export).parameters["target"].default == DEFAULT_TARGET


def test_list_is_the_same_through_the_parser(cli: Cli) -> None:
    from typer.testing import CliRunner

    from deploy_attn.commands import app

    assert CliRunner().invoke(app, ["list"]).stdout == cli("list").stdout
    assert CliRunner().invoke(app, ["list", "--json"]).stdout == cli("list", "--json").stdout


def test_a_branch_that_the_trace_froze_fails_the_verdict(cli: Cli, in_folder: Path) -> None:
    (in_folder / "net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x * 2 if x.sum() > 0 else x * 3\n"
        "def build():\n"
        "    return Net()\n",
        encoding="utf-8",
    )
    with pytest.warns(torch.jit.TracerWarning):  # type: ignore[attr-defined]
        done = cli("export", "net.py:build", "--shape", "1x3x8x8")
    assert done.exit_code == 1
    assert "FAIL" in done.stdout
    assert "negated" in done.stdout


def test_an_operator_that_no_exporter_knows_is_one_message(in_folder: Path) -> None:
    """In a process of its own: what the exporter dumps bypasses Python's stdout."""
    (in_folder / "net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.linalg.qr(x)[0]\n"
        "def build():\n"
        "    return Net()\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "deploy_attn", "export", "net.py:build", "--shape", "1x3x8x8", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2
    assert done.stderr.startswith("deploy-attn: The exporter refuses this network: ")
    assert len(done.stderr.splitlines()) < 10


def test_a_standard_transformer_layer_is_exported(cli: Cli, in_folder: Path) -> None:
    (in_folder / "net.py").write_text(
        "import torch, deploy_attn\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.gate = deploy_attn.create('se', channels=16, reduction=4)\n"
        "        self.layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)\n"
        "    def forward(self, x):\n"
        "        return self.layer(self.gate(x).flatten(2).transpose(1, 2))\n"
        "def build():\n"
        "    return Net()\n",
        encoding="utf-8",
    )
    done = cli("export", "net.py:build", "--shape", "1x16x4x4", "--fp16")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "replaced  se at gate" in done.stdout


def write_network(folder: Path, forward: str, init: str = "", factory: str = "return Net()") -> None:
    body = "".join(f"        {line}\n" for line in init.splitlines())
    (folder / "net.py").write_text(
        "import os, torch, deploy_attn\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        f"{body}"
        "        self.gate = deploy_attn.create('se', channels=16, reduction=4)\n"
        "    def forward(self, x):\n"
        f"        {forward}\n"
        "def build():\n"
        f"    {factory}\n",
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    ("init", "forward"),
    [
        ("", "return self.gate(x=x)"),
        ("", "return self.gate(x.mul_(2))"),
        ("", "return self.gate(x).argmax(1)"),
        ("", "return self.gate(x), torch.ones(3)"),
        ("self.first = torch.nn.LazyConv2d(16, 1)", "return self.gate(self.first(x))"),
        ("", "return self.gate(x).flatten(2).transpose(1, 2).sum(1)"),
        ("", "return self.gate(x).double()"),
    ],
    ids=["keyword", "in-place", "integers", "constant-output", "lazy", "tokens", "double-output"],
)
@pytest.mark.parametrize("more", [[], ["--dynamic-batch"]], ids=["static", "dynamic-batch"])
@pytest.mark.filterwarnings("ignore:ONNX Preprocess - Removing mutation:UserWarning")
def test_unusual_networks_are_exported(cli: Cli, in_folder: Path, init: str, forward: str, more: list[str]) -> None:
    write_network(in_folder, forward, init)
    done = cli("export", "net.py:build", "--shape", "2x16x6x5", "--fp16", *more)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "replaced  se at gate" in done.stdout


@pytest.mark.parametrize(
    ("init", "forward", "code", "words"),
    [
        ("", "return self.gate(x) + torch.rand_like(x)", 2, "two results for one input"),
        ("", "return self.gate(x)[:, :0]", 2, "empty tensor"),
        ("", "return self.gate(x) * self.gate.fc[0].weight.sum()", 1, "raises AttributeError"),
        ("", "return torch.ones(2, 3)", 2, "do not depend on its input"),
        (
            "self.lock = __import__('threading').Lock()",
            "return self.gate(x)",
            2,
            "cannot be copied",
        ),
        (
            "self.table = [torch.ones(16, 1, 1, dtype=torch.float32)]",
            "return torch.matmul(self.gate(x)[..., :1, :1], self.table[0][:1])",
            2,
            "not in float64",
        ),
    ],
    ids=["random", "empty", "reads-attributes", "constant", "no-copy", "float32-only"],
)
def test_a_network_that_cannot_be_exported_is_told_why(
    cli: Cli, in_folder: Path, init: str, forward: str, code: int, words: str
) -> None:
    write_network(in_folder, forward, init)
    done = cli("export", "net.py:build", "--shape", "2x16x6x5", "--fp16")
    assert done.exit_code == code, done.stdout + done.stderr
    assert words in done.stderr
    assert not (in_folder / "out").exists()


def test_a_rank_that_hangs_on_the_batch_is_refused_for_an_open_one(cli: Cli, in_folder: Path) -> None:
    write_network(in_folder, "return self.gate(x).squeeze(0)")
    assert cli("export", "net.py:build", "--shape", "1x16x6x5", "-o", "a").exit_code == 0
    done = cli("export", "net.py:build", "--shape", "2x16x6x5", "--dynamic-batch", "-o", "b")
    assert done.exit_code == 2
    assert "depends on the batch" in done.stderr


def test_json_stays_one_document_whatever_a_factory_writes(in_folder: Path) -> None:
    write_network(
        in_folder, "return self.gate(x)", factory="os.system('echo shouting'); os.write(1, b'raw\\n'); return Net()"
    )
    command = [sys.executable, "-m", "deploy_attn", "export", "net.py:build", "--shape", "1x16x6x5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True
    assert "shouting" in done.stderr
    assert "raw" in done.stderr


def test_an_artifact_can_be_replaced_from_inside(cli: Cli, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("export", "se", *SMALL, "-o", "a").exit_code == 0
    monkeypatch.chdir(in_folder / "a")
    done = cli("export", "eca", *SMALL, "-o", ".", "--force")
    assert done.exit_code == 0, done.stderr
    assert read_manifest(str(in_folder / "a"))["name"] == "eca"


@pytest.mark.parametrize(
    ("options", "words"),
    [({"shape": (1, 64, 56)}, "is not a shape"), ({"seed": -1}, "A seed is a number"), ({"target": "moon"}, "'moon'")],
)
def test_the_python_api_says_what_is_wrong_too(in_folder: Path, options: dict[str, object], words: str) -> None:
    from deploy_attn import BadRequest, ExportRequest, export_artifact

    with pytest.raises(BadRequest, match=words):
        export_artifact(ExportRequest("se", **options))  # type: ignore[arg-type]


def test_the_python_api_takes_paths_as_text(in_folder: Path) -> None:
    from deploy_attn import ExportRequest, export_artifact

    request = ExportRequest("se", shape=(1, 32, 5, 6), output="a")  # type: ignore[arg-type]
    assert export_artifact(request).folder == Path("a")
