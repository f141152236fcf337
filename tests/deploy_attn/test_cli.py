"""The command line as a user meets it: results, exit codes, documents."""

from __future__ import annotations

import contextlib
import inspect
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from deploy_attn import create, verify
from deploy_attn.cli import main
from deploy_attn.engines.target import MARKS, load_target, target_names
from deploy_attn.jetson.artifact import find_damage, read_manifest
from tests.deploy_attn.command_line import SMALL, Cli, files_of, write_network


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
    assert weights["spatial_gate.conv.conv.weight"][3] == 3


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


PRELOADED = [
    "deploy_attn.commands",
    "deploy_attn.exporting",
    "deploy_attn.presentation",
    "deploy_attn.traced",
    "onnx",
    "onnxruntime",
    "pytest",
    "torch.onnx.utils",
]


@pytest.fixture(scope="module")
def started() -> Callable[..., BaseProcess]:
    """Starts `deploy-attn ARGUMENTS` as a process that has imported already what takes a second to import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)

    def start(*arguments: str) -> BaseProcess:
        process = context.Process(target=main, args=(arguments,))
        process.start()
        return process

    start("list").join()
    return start


@pytest.mark.parametrize(
    "sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda sent: sent.name
)
@pytest.mark.parametrize("moment_s", [0.05, 0.2, 0.35, 0.5])
def test_a_kill_leaves_the_old_artifact_or_the_new_one(
    cli: Cli, in_folder: Path, started: Callable[..., BaseProcess], sent: signal.Signals, moment_s: float
) -> None:
    assert cli("export", "se", *SMALL, "-o", "a").exit_code == 0
    process = started("export", "eca", "--fp16", *SMALL, "-o", "a", "--force")
    time.sleep(moment_s)
    assert process.pid
    with contextlib.suppress(ProcessLookupError):  # a machine may be through by then
        os.kill(process.pid, sent)
    process.join(timeout=60)
    assert process.exitcode is not None
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
    assert len(entries) == 22
    for entry in entries:
        row = next(line for line in done.stdout.splitlines() if line.startswith(f"{entry['name']} "))
        assert entry["title"] in row
        assert str(entry["year"]) in row
        assert entry["arxiv"] in row
        for option in entry["options"]:
            default = option["default"]
            shown = ",".join(map(str, default)) if isinstance(default, list) else default
            assert f"{option['name']}={shown}" in row
        for constraint in (*entry["constraints"], *entry["map_constraints"]):
            assert constraint in row


def test_list_shows_every_target_with_the_mark_of_each_value(cli: Cli) -> None:
    done = cli("list", "--targets")
    targets = json.loads(cli("list", "--targets", "--json").stdout)
    assert done.exit_code == 0
    assert [target["name"] for target in targets] == target_names()
    headings, *rows = done.stdout.partition("\n\n")[0].splitlines()
    assert len(rows) == len(targets)
    for row, target in zip(rows, targets):
        assert row.startswith(f"{target['name']} ")
        assert target["title"] in row
        shown = row[headings.index("RUNS") :]
        for key in ("runtime.tensorrt", "onnx.opset", "onnx.ir_version", "device.bandwidth_gb_per_s"):
            if key in target["facts"]:
                fact = target["facts"][key]
                assert f" {fact['value']} {fact['mark'][0]}" in shown
    assert all(f"{mark[0]} " in done.stdout for mark in MARKS)


def test_the_listed_targets_are_those_that_an_export_would_load(cli: Cli) -> None:
    for listed in json.loads(cli("list", "--targets", "--json").stdout):
        target = load_target(listed["name"])
        assert [listed[key] for key in ("title", "family", "engine")] == [target.title, target.family, target.engine]
        facts = {key: (fact.value, fact.mark, fact.note) for key, fact in target.facts.items()}
        assert {key: (fact["value"], fact["mark"], fact["note"]) for key, fact in listed["facts"].items()} == facts


def test_a_target_of_one_s_own_is_exported_for_and_recorded_by_its_name(cli: Cli, in_folder: Path) -> None:
    (in_folder / "board.toml").write_text(
        'title = "A board"\nfamily = "gpu"\nengine = "onnxruntime"\n[onnx]\n'
        'opset = { value = 15, mark = "derived" }\nir_version = { value = 8, mark = "derived" }\n',
        encoding="utf-8",
    )
    done = cli("export", "se", "--fp16", "--target", "./board.toml", *SMALL, "-o", "a")
    assert done.exit_code == 0, done.stderr
    manifest = read_manifest("a")
    assert (manifest["target"], manifest["opset"], manifest["ir_version"]) == ("board", 15, 8)
    assert onnx.load("a/model.fp16.onnx").opset_import[0].version == 15


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
    for options in (["--json"], ["--targets"], ["--targets", "--json"]):
        assert CliRunner().invoke(app, ["list", *options]).stdout == cli("list", *options).stdout
    assert CliRunner().invoke(app, ["list", "--json", "--targets"]).stdout == cli("list", "--targets", "--json").stdout


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
