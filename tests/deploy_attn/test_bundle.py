"""`deploy-attn bundle`: the same bytes everywhere, what goes in, what is refused, and a run of what comes out."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.bundling import bundle
from deploy_attn.jetson.artifact import SELF_HASH, manifest_sha256, open_artifact
from deploy_attn.jetson.capsule import open_capsule, unpack
from tests.deploy_attn.command_line import Cli

WITHIN = 1e-6  # the same graph in another onnxruntime: rounding apart


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    request = ExportRequest(
        "cbam",
        shape=(1, 32, 20, 20),  # large enough for outputs to be thinned
        fp16=True,
        target="jetson-nano",
        output=tmp_path_factory.mktemp("exported") / "cbam",
    )
    return export_artifact(request).folder


@pytest.fixture
def folder(exported: Path, in_folder: Path) -> Path:
    return shutil.copytree(exported, in_folder / "cbam").relative_to(in_folder)


def test_the_same_artifact_gives_the_same_bytes_wherever_and_whenever(exported: Path, tmp_path: Path) -> None:
    first = bundle(exported, "jetson-nano", tmp_path / "first.tar.gz").archive.read_bytes()
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(exported, copy)
    for number, file in enumerate(sorted(copy.iterdir())):
        os.utime(file, (10**9 + number, 10**9 + number))
        file.chmod(0o600)
    before, mask = Path.cwd(), os.umask(0o077)
    try:
        os.chdir(copy.parent)
        second = bundle("copy", "jetson-nano").archive.resolve()
    finally:
        os.chdir(before)
        os.umask(mask)
    assert second == copy.parent / "cbam-jetson-nano.tar.gz"
    assert second.read_bytes() == first
    again = bundle(exported, "jetson-nano", tmp_path / "first.tar.gz", force=True)
    assert again.archive.read_bytes() == first


def test_nothing_in_an_archive_tells_when_or_by_whom_it_was_made(exported: Path, tmp_path: Path) -> None:
    report = bundle(exported, "jetson-nano", tmp_path / "a.tar.gz")
    content = report.archive.read_bytes()
    assert content[3:8] == b"\0" * 5  # no name, no time
    assert gzip.decompress(content)
    with tarfile.open(report.archive) as tar:
        members = tar.getmembers()
    assert [one.name for one in members] == sorted(one.name for one in members)
    assert {(one.uid, one.gid, one.mtime, one.uname, one.gname) for one in members} == {(0, 0, 0, "", "")}
    assert {one.mode for one in members if one.name.endswith("/run.py")} == {0o755, 0o644}


def test_a_capsule_holds_what_the_target_can_use_and_opens(exported: Path, tmp_path: Path) -> None:
    report = bundle(exported, "jetson-nano", tmp_path / "a.tar.gz")
    place = Path(unpack(str(report.archive), str(tmp_path / "out")))
    assert place.name == "cbam-jetson-nano"
    capsule = open_capsule(str(place))
    assert sorted(file.name for file in (place / "artifact").iterdir()) == [
        "certificate.json",
        "manifest.json",
        "model.onnx",
        "precision_plan.json",
    ]
    assert set(capsule.left_out) == {"model.fp16.onnx"}
    assert capsule.facts["runtime.tensorrt"] == "8.2.1"
    assert (place / "artifact" / "manifest.json").read_bytes() == (exported / "manifest.json").read_bytes()
    sources = {file.name for file in (Path(__file__).parents[2] / "jetson").glob("*.py")}
    assert {file.name for file in (place / "jetson").iterdir()} == sources


@pytest.mark.parametrize("fp16", [False, True])
def test_a_capsule_of_cbam_is_under_300_kb_beyond_its_weights(tmp_path: Path, fp16: bool) -> None:
    import onnx

    request = ExportRequest("cbam", fp16=fp16, target="jetson-nano", output=tmp_path / "cbam")
    folder = export_artifact(request).folder
    report = bundle(folder, "jetson-nano")
    weights = onnx.load(str(folder / "model.onnx")).graph.initializer
    size_of_weights = sum(onnx.numpy_helper.to_array(weight).nbytes for weight in weights)
    assert report.size_bytes == report.archive.stat().st_size
    assert report.size_bytes - size_of_weights < 300_000
    assert report.reference.artifact_bytes > 4_800_000
    assert (report.reference.regenerated_inputs, report.reference.thinned_outputs) == (3, 3)


def test_open_axes_cost_little_more(tmp_path: Path) -> None:
    request = ExportRequest(
        "cbam", target="jetson-nano", dynamic_batch=True, dynamic_size=True, output=tmp_path / "cbam"
    )
    report = bundle(export_artifact(request).folder, "jetson-nano")
    assert report.size_bytes < 300_000
    assert (report.reference.regenerated_inputs, report.reference.thinned_outputs) == (5, 5)


def test_the_inputs_on_the_board_are_those_of_the_artifact_to_the_last_bit(exported: Path, tmp_path: Path) -> None:
    report = bundle(exported, "jetson-nano", tmp_path / "a.tar.gz")
    found = open_capsule(unpack(str(report.archive), str(tmp_path))).artifact.cases()
    cases = open_artifact(str(exported)).cases()
    assert [case.name for case in found] == [case.name for case in cases] == ["normal", "far_mean", "large"]
    for mine, other in zip(found, cases):
        assert mine.inputs["input"].tobytes() == other.inputs["input"].tobytes()


def test_an_input_of_ones_own_is_stored_whole_and_its_size_is_said(cli: Cli, in_folder: Path) -> None:
    np.save("mine.npy", np.random.RandomState(0).random_sample((1, 8, 40, 40)).astype(np.float32))
    exported = cli("export", "eca", "--input", "mine.npy", "--target", "jetson-nano", "-o", "eca", "--dynamic-batch")
    assert exported.exit_code == 0, exported.stderr
    done = cli("bundle", "eca", "--target", "jetson-nano")
    assert done.exit_code == 0, done.stderr
    assert "1 input made again on the board, 1 input whole (51.2 kB), 2 outputs by sampled elements" in done.stdout
    place = Path(unpack("eca-jetson-nano.tar.gz", "out"))
    ended = run(place.absolute(), "--engine", "onnxruntime", "--quick", "--duration", "0.05", "--json")
    assert ended.returncode == 0, ended.stderr
    assert [check["case"] for check in json.loads(ended.stdout)["checks"]] == ["file", "larger_batch"]


def test_a_target_of_its_own_with_tensorrt_10_gets_the_typed_graph(exported: Path, tmp_path: Path) -> None:
    nano = (Path(__file__).parents[2] / "engines" / "targets" / "jetson-nano.toml").read_text(encoding="utf-8")
    mine = tmp_path / "mine.toml"
    mine.write_text(nano.replace('value = "8.2.1"', 'value = "10.3.0"'), encoding="utf-8")
    report = bundle(exported, str(mine), tmp_path / "a.tar.gz")
    assert (report.left_out, report.folder) == ({}, "cbam-mine")
    capsule = open_capsule(unpack(str(report.archive), str(tmp_path)))
    assert "model.fp16.onnx" in capsule.artifact.manifest["files"]


def test_open_axes_come_with_the_shapes_to_build_for(tmp_path: Path) -> None:
    request = ExportRequest(
        "eca", shape=(1, 8, 6, 6), target="jetson-nano", dynamic_batch=True, output=tmp_path / "eca"
    )
    report = bundle(export_artifact(request).folder, "jetson-nano")
    profile = open_capsule(unpack(str(report.archive), str(tmp_path / "out"))).profile
    assert profile == {"input": [[1, 8, 6, 6], [1, 8, 6, 6], [2, 8, 6, 6]]}


def test_the_command_says_the_size_and_what_to_do(cli: Cli, folder: Path) -> None:
    done = cli("bundle", folder, "--target", "jetson-nano")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("cbam for jetson-nano: ")
    assert " kB (before compression: graphs " in done.stdout
    assert "3 inputs made again on the board, 3 outputs by sampled elements and signed sums of all" in done.stdout
    assert "left out: model.fp16.onnx: TensorRT 8.2 takes precision from model.onnx and the plan" in done.stdout
    assert "tar xf cbam-jetson-nano.tar.gz && cd cbam-jetson-nano && python3 run.py" in done.stdout
    assert Path("cbam-jetson-nano.tar.gz").is_file()


def test_json_is_the_report(cli: Cli, folder: Path) -> None:
    done = cli("bundle", folder, "--target", "jetson-nano", "-o", "a.tar.gz", "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["passed"]) == (0, True)
    assert report["size_bytes"] == Path(report["archive"]).stat().st_size
    assert report["parts"]["reference"] == report["reference"]["size_bytes"]
    assert report["reference"]["artifact_bytes"] == (folder / "reference.npz").stat().st_size


def rewritten(folder: Path, **changed: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest.update(changed)
    manifest[SELF_HASH] = manifest_sha256(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("jetson-thor", "was exported for jetson-nano at opset 13, IR 7; target jetson-thor takes opset "),
        ("onnxruntime-cpu", "Export it again with --target onnxruntime-cpu."),
        ("jetson-nan", "Known: jetson-nano"),
    ],
)
def test_another_targets_artifact_is_refused_with_the_reason(cli: Cli, folder: Path, target: str, said: str) -> None:
    done = cli("bundle", folder, "--target", target)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert list(Path().glob("*.tar.gz")) == []


def test_an_artifact_without_parity_cases_is_refused(cli: Cli, folder: Path) -> None:
    rewritten(folder, cases=[])
    done = cli("bundle", folder, "--target", "jetson-nano")
    assert done.exit_code == 2
    assert "has no reference" in done.stderr


def test_a_damaged_artifact_is_not_bundled(cli: Cli, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")
    done = cli("bundle", folder, "--target", "jetson-nano")
    assert done.exit_code == 1
    assert "model.onnx: changed since the export" in done.stderr


def test_what_is_there_is_kept_unless_forced_and_nothing_but_a_file_is_replaced(cli: Cli, folder: Path) -> None:
    Path("a.tar.gz").write_text("mine", encoding="utf-8")
    Path("link.tar.gz").symlink_to("a.tar.gz")
    bundled = ("bundle", folder, "--target", "jetson-nano", "-o")
    assert "exists already" in cli(*bundled, "a.tar.gz").stderr
    assert "is not a plain file" in cli(*bundled, "link.tar.gz", "--force").stderr
    assert "is a folder" in cli(*bundled, ".", "--force").stderr
    assert "cannot be written" in cli(*bundled, "a.tar.gz/b.tar.gz").stderr
    assert Path("a.tar.gz").read_text(encoding="utf-8") == "mine"
    assert cli(*bundled, "a.tar.gz", "--force").exit_code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["a.tar.gz", "cbam", "link.tar.gz"]


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python run.py` with nothing of the project on its path."""
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    command = [sys.executable, "-I", "-W", "error", str(place / "run.py"), *arguments]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)


def test_an_unpacked_capsule_comes_to_the_hosts_verdict(exported: Path, tmp_path: Path) -> None:
    report = bundle(exported, "jetson-nano", tmp_path / "a.tar.gz")
    place = Path(unpack(str(report.archive), str(tmp_path / "another path")))
    done = run(place, "--engine", "onnxruntime", "--quick", "--duration", "0.05", "--json")
    assert done.returncode == 0, done.stderr
    board = json.loads(done.stdout)
    host = json.loads((exported / "verdict-onnxruntime.json").read_text(encoding="utf-8"))
    theirs = [check for check in host["checks"] if check["bracket"] == "exact"]
    assert len(board["checks"]) == len(theirs) == 3
    for mine, other in zip(board["checks"], theirs):
        assert {key: mine[key] for key in ("graph", "case", "output", "passed", "tolerance")} == {
            key: other[key] for key in ("graph", "case", "output", "passed", "tolerance")
        }
        assert mine["measured"]["rms_relative"] == pytest.approx(other["measured"]["rms_relative"], abs=WITHIN)


def test_sources_of_another_capsule_at_the_same_place_are_not_taken_for_these(exported: Path, tmp_path: Path) -> None:
    """All files of an archive have one time, and by time and size Python knows its bytecode."""
    archive = bundle(exported, "jetson-nano", tmp_path / "a.tar.gz").archive
    shutil.unpack_archive(archive, tmp_path)
    place = tmp_path / "cbam-jetson-nano"
    file = place / "jetson" / "arguments.py"
    source = file.read_text(encoding="utf-8")
    file.write_text(source.replace('prog="run.py"', 'prog="old.py"'), encoding="utf-8")
    os.utime(file, (0, 0))
    assert "usage: old.py" in run(place, "--help").stdout
    shutil.unpack_archive(archive, tmp_path)
    assert "usage: run.py" in run(place, "--help").stdout


def test_the_launcher_names_what_is_missing(exported: Path, tmp_path: Path) -> None:
    archive = bundle(exported, "jetson-nano", tmp_path / "a.tar.gz").archive
    place = Path(unpack(str(archive), str(tmp_path)))
    shutil.rmtree(place / "jetson")
    (place / "jetson").mkdir()
    done = run(place)
    assert done.returncode == 2
    assert "the capsule is damaged" in done.stderr
    (place / "numpy.py").write_text("raise ImportError('no numpy here')", encoding="utf-8")
    code = f"import runpy, sys; sys.path.insert(0, {str(place)!r}); runpy.run_path('run.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, "apt install python3-numpy" in done.stderr) == (2, True)
