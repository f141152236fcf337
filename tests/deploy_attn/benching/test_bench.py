"""`deploy-attn bench`: what is compared with what, what is refused, what is kept, and what a person reads."""

from __future__ import annotations

import errno
import functools
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deploy_attn import BadRequest, BenchOptions, DamagedArtifact, ExportRequest, bench, export_artifact
from deploy_attn.benching import bench as benching
from deploy_attn.benching import roofs
from deploy_attn.benching.file import read_bench
from deploy_attn.benching.text import rivals_from_texts
from deploy_attn.engines.latency.protocol import Bench, Effort
from deploy_attn.engines.latency.runners import rival_settings
from deploy_attn.engines.machine_limits import Limits
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.jetson.artifact import open_artifact
from deploy_attn.rivals.ground import OwnFiles, ground_of
from tests.deploy_attn.command_line import Cli, write_network
from tests.engines.latency.fakes import AT_ONCE, LIMITS, machine

FEW = Effort(pairs=2)
QUICK = ("--pairs", "2")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without other programs, whose limits are known, and no wait for the times to settle."""
    monkeypatch.setattr(roofs, "measured_limits", lambda size, threads: replace(LIMITS, threads=threads))
    monkeypatch.setattr(benching, "Bench", functools.partial(Bench, watch=machine(), warm_up=AT_ONCE))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two artifacts of one shape, and one of another."""
    folder = tmp_path_factory.mktemp("bench")
    for name, shape in (("se", (1, 16, 8, 8)), ("s2", (1, 16, 8, 8)), ("eca", (1, 16, 9, 8))):
        export_artifact(ExportRequest(name, shape=shape, fp16=name == "se", output=folder / name))
    return folder


@pytest.fixture
def out(exported: Path, in_folder: Path) -> Path:
    """`out` in the current folder."""
    return Path(shutil.copytree(exported, in_folder / "out")).relative_to(in_folder)


def document(folder: Path) -> Any:
    return json.loads((folder / "bench-onnxruntime.json").read_text(encoding="utf-8"))


def questions(folder: Path) -> list[tuple[str, str]]:
    return [(one["precision"], one["baseline"]["label"]) for one in document(folder)["comparisons"]]


def test_an_artifact_is_compared_with_rivals_in_each_precision_and_the_results_are_kept(cli: Cli, out: Path) -> None:
    done = cli("bench", out / "se", "--against", "naive,eager", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert "fp16" in done.stdout
    assert "no claim" in done.stdout
    assert "2 pairs bear no claim" in done.stdout
    assert "itself again" in done.stdout
    assert questions(out / "se") == [("fp32", "naive"), ("fp32", "eager"), ("fp16", "naive"), ("fp16", "eager")]
    kept = read_bench(out / "se" / "bench-onnxruntime.json")
    assert kept.artifact_sha256 == json.loads((out / "se" / "manifest.json").read_text())["manifest_sha256"]
    assert all(one.ratio.pairs == one.control.pairs == 2 for one in kept.comparisons)
    assert all((one.conditions["cache"], one.conditions["threads"]) == ("hot", 1) for one in kept.comparisons)
    assert "bench-onnxruntime.json" not in json.loads((out / "se" / "manifest.json").read_text())["files"]


def test_what_the_machine_does_at_most_is_measured_once_and_kept_with_each_record(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def limits(size: int, threads: int) -> Limits:
        asked.append((size, threads))
        return replace(LIMITS, threads=threads)

    monkeypatch.setattr(roofs, "measured_limits", limits)
    bench(out / "se", BenchOptions(against=("naive", "eager"), threads=2, effort=FEW))
    ((size, threads),) = asked
    maps = 2 * 4 * 16 * 8 * 8
    assert maps < size < maps + (out / "se" / "model.onnx").stat().st_size + (1 << 12)
    assert threads == 2
    kept = read_bench(out / "se" / "bench-onnxruntime.json")
    assert [one.limits for one in kept.comparisons] == [replace(LIMITS, threads=2)] * 4


def test_a_machine_whose_limits_cannot_be_measured_is_benched_with_a_note(
    cli: Cli, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(size: int, threads: int) -> Limits:
        raise BadRequest("No room for that.")

    monkeypatch.setattr(roofs, "measured_limits", failing)
    done = cli("bench", out / "se", *QUICK)
    assert done.exit_code == 0
    assert done.stdout.count("No room for that. The records have no roof.") == 1
    assert [one.limits for one in read_bench(out / "se" / "bench-onnxruntime.json").comparisons] == [None, None]


def test_a_newer_answer_takes_the_place_of_the_same_question_only(out: Path) -> None:
    folder = out / "se"
    for options in (
        BenchOptions(precision="fp32", effort=FEW),
        BenchOptions(precision="fp32", effort=FEW, other=out / "s2"),
        BenchOptions(precision="fp32", effort=Effort(pairs=1, cold=True)),
        BenchOptions(precision="fp32", effort=Effort(pairs=3)),
    ):
        bench(folder, options)
    found = [
        (one["baseline"]["label"], one["conditions"]["cache"], one["ratio"]["pairs"])
        for one in document(folder)["comparisons"]
    ]
    assert found == [(f"{out / 's2'} fp32", "hot", 2), ("itself", "cold", 1), ("itself", "hot", 3)]


def test_results_of_another_export_are_not_kept(out: Path) -> None:
    folder = out / "se"
    bench(folder, BenchOptions(effort=FEW, precision="fp32"))
    file = folder / "bench-onnxruntime.json"
    file.write_text(file.read_text().replace(document(folder)["artifact_sha256"], "0" * 64))
    bench(folder, BenchOptions(effort=FEW, precision="fp16"))
    assert questions(folder) == [("fp16", "itself")]


def test_by_itself_an_artifact_has_times_and_a_control_and_no_claim(cli: Cli, out: Path) -> None:
    done = cli("bench", out / "s2", *QUICK, "--json")
    assert done.exit_code == 0
    (one,) = json.loads(done.stdout)["comparisons"]
    assert one["baseline"]["label"] == "itself"
    assert one["claim"] is None
    assert "no baseline" in one["refused"]
    assert one["ratio"] == one["control"]
    assert one["candidate"]["latency"]["median_ms"] > 0


def test_two_artifacts_are_compared_where_they_take_the_same(cli: Cli, out: Path) -> None:
    assert cli("bench", out / "se", out / "s2", "--precision", "fp32", *QUICK).exit_code == 0
    other = cli("bench", out / "se", out / "eca", *QUICK)
    assert (other.exit_code, other.stdout) == (2, "")
    assert "1x16x8x8" in other.stderr
    assert "1x16x9x8" in other.stderr
    lacking = cli("bench", out / "se", out / "s2", *QUICK)
    assert lacking.exit_code == 2
    assert "no graph in fp16" in lacking.stderr


def spoil(change: Callable[[Path], None], folder: Path) -> Path:
    change(folder / "verdict-onnxruntime.json")
    return folder


def failed(file: Path) -> None:
    verdict = json.loads(file.read_text(encoding="utf-8"))
    verdict["passed"] = False
    verdict["checks"][0]["passed"] = False
    verdict["checks"][0]["measured"]["rms_relative"] = 0.5
    file.write_text(json.dumps(verdict), encoding="utf-8")


def of_another(file: Path) -> None:
    verdict = json.loads(file.read_text(encoding="utf-8"))
    verdict["conditions"]["artifact_sha256"] = "0" * 64
    file.write_text(json.dumps(verdict), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [(Path.unlink, "no verdict"), (failed, "fails parity"), (of_another, "another export")],
    ids=["missing", "failed", "stale"],
)
def test_without_a_verdict_that_holds_nothing_is_timed_but_by_force(
    cli: Cli, out: Path, change: Callable[[Path], None], words: str
) -> None:
    folder = spoil(change, out / "se")
    refused = cli("bench", folder, *QUICK)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert words in refused.stderr
    assert f"deploy-attn verify {folder} --engine onnxruntime" in refused.stderr
    assert not (folder / "bench-onnxruntime.json").exists()
    forced = cli("bench", folder, "--force", "--precision", "fp32", "--against", "naive", "--pairs", "30")
    assert forced.exit_code == 0
    assert "may be wrong" in forced.stdout
    assert words in forced.stdout
    (one,) = document(folder)["comparisons"]
    assert one["claim"] is None
    assert words in one["conditions"]["forced"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["out/nowhere"], "is not an artifact"),
        (["out/se", "--engine", "onnxruntim"], "Unknown engine"),
        (["out/se", "--engine", "tensorrt", "--threads", "2"], "runs on a GPU"),
        (["out/se", "--engine", "tensorrt", "--cold"], "runs on a GPU"),
        (["out/se", "--engine", "tensorrt-rtx"], "CUDA"),
        (["out/se", "--engine", "onnxruntime-cuda"], "CUDAExecutionProvider was asked for"),
        (["out/se", "--source", "net.py"], "Add --against"),
        (["out/se", "--against", "naive", "--source", "net.py"], "networks of one's own"),
        (["out/se", "--against", "naive", "--checkpoint", "net.pt"], "exported without one"),
        (["out/se", "--precision", "int8"], "no precision"),
        (["out/s2", "--precision", "fp16"], "--fp16"),
        (["out/se", "--threads", "100000"], "processors"),
        (["out/se", "--threads", "0"], "processors"),
        (["out/se", "--pairs", "0"], "1 to"),
        (["out/se", "--pairs", "many"], "--pairs"),
        (["out/se", "--seconds", "nan"], "seconds"),
        (["out/se", "--seconds", "1", "--pairs", "3"], "Give one"),
        (["out/se", "--against", "naiv"], "naive"),
        (["out/se", "--against", ""], "empty"),
        (["out/se", "--against", "naive,"], "empty"),
        (["out/se", "--against", "naive,naive"], "twice"),
        (["out/se", "--against", "eager", "--engine", "onnxruntime-cuda"], "does not run beside"),
        (["out/se", "--against", "naive", "--engine", "tensorrt"], "bench DIR DIR2"),
        (["out/se", "out/s2", "--against", "naive"], "Compare with another artifact"),
        (["out/se", "--target", "jetson-nano"], "--estimate"),
        (["out/se", "--estimate"], "--target"),
        (["out/se", "--estimate", "--target", "jetson-nano", "--against", "naive"], "leave"),
        (["out/se", "--estimate", "--target", "jetson-nan"], "jetson-nano"),
    ],
)
def test_bad_requests_say_what_is_possible_and_leave_nothing(
    cli: Cli, out: Path, arguments: list[str], words: str
) -> None:
    done = cli("bench", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(out.rglob("bench-*"))


def test_rivals_are_a_sequence_of_names() -> None:
    with pytest.raises(BadRequest, match=r"write \('naive',\)"):
        BenchOptions(against="naive")


def test_a_damaged_artifact_is_not_timed(out: Path) -> None:
    graph = out / "se" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(DamagedArtifact):
        bench(out / "se", BenchOptions(effort=FEW))


def test_a_file_of_results_that_is_none_is_said_before_anything_is_timed(cli: Cli, out: Path) -> None:
    (out / "se" / "bench-onnxruntime.json").write_text("[]", encoding="utf-8")
    done = cli("bench", out / "se", *QUICK)
    assert done.exit_code == 2
    assert "remove it" in done.stderr


@pytest.mark.parametrize("against", [(), ("--against", "naive")])
def test_an_absent_engine_says_what_to_install(
    cli: Cli, out: Path, monkeypatch: pytest.MonkeyPatch, against: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = cli("bench", out / "se", *against, *QUICK)
    assert done.exit_code == 2
    assert "pip install 'deploy-attn[cpu]'" in done.stderr


def test_a_rival_that_is_not_installed_is_a_bad_request(cli: Cli, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = cli("bench", out / "se", "--against", "openvino", *QUICK)
    assert done.exit_code == 2
    assert "pip install 'deploy-attn[peers]'" in done.stderr


@pytest.mark.parametrize("rival", ["naive", "onnxsim", "onnxslim", "eager"])
def test_a_rival_starts_from_the_network_that_was_exported(out: Path, rival: str) -> None:
    report = bench(out / "s2", BenchOptions(against=(rival,), effort=FEW))
    assert report.passed
    (record,) = report.records
    assert record.comparison.baseline.label == rival


def test_a_rival_of_a_catalogue_module_is_the_source_s_code_with_the_artifact_s_weights(out: Path) -> None:
    artifact = open_artifact(str(out / "se"))
    ground = ground_of(artifact, artifact.cases()[0], OwnFiles(), rival_settings("onnxruntime", 1))
    assert type(ground.network).__module__ == "deploy_attn.modules.naive_forms"
    assert ground.threads == 1
    found = {entry.version for entry in ground.graph.opset_import}, ground.graph.ir_version
    assert found == ({artifact.manifest["opset"]}, artifact.manifest["ir_version"])


def test_the_plain_export_of_a_source_that_asks_for_sizes_is_silent(tmp_path: Path) -> None:
    folder = export_artifact(ExportRequest("fca", shape=(1, 16, 14, 14), output=tmp_path / "fca")).folder
    artifact = open_artifact(str(folder))
    ground = ground_of(artifact, artifact.cases()[0], OwnFiles(), rival_settings("onnxruntime", 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ground.graph.graph.node


def test_a_folder_of_a_module_s_name_is_not_in_the_way(out: Path) -> None:
    folder = out.rename("s2")
    assert bench(folder / "s2", BenchOptions(against=("naive",), effort=FEW)).passed


def test_each_comparison_tells_of_its_progress(out: Path) -> None:
    phases: dict[str, None] = {}
    bench(out / "s2", BenchOptions(against=("naive",), effort=FEW), lambda event: phases.update({event["phase"]: None}))
    title = f"{out / 's2'} fp32 against naive"
    assert list(phases) == [f"1 of 1: {title}"]


def test_progress_counts_the_comparisons_and_tells_of_each_before_its_baseline_is_made(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def refused(name: str, *_: Any) -> Any:
        told.append(name)
        raise BadRequest(f"{name} is not for this.")

    monkeypatch.setattr(benching, "entrant_of", refused)
    options = BenchOptions(against=("naive", "eager"), effort=FEW)
    bench(out / "se", options, lambda event: told.append(f"{event['phase'].partition(':')[0]} {event['step']}"))
    assert [one.partition(" of ")[0] for one in told] == [
        "1",
        "naive",
        "1",
        "2",
        "eager",
        "2",
        "3",
        "naive",
        "3",
        "4",
        "eager",
        "4",
    ]
    assert told[:3] == ["1 of 4 0", "naive", "1 of 4 1"], "what is not compared does not stay on the terminal"


def test_torch_s_threads_are_as_before(out: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        bench(out / "s2", BenchOptions(against=("eager",), effort=FEW))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def fake_openvino(scale: float) -> SimpleNamespace:
    """As much of OpenVINO as the rival calls; it computes in onnxruntime, and multiplies."""

    class Request:
        def __init__(self, content: bytes) -> None:
            self._held = ExitStack()
            self._runner = self._held.enter_context(OnnxRuntimeRunner(content))
            self._inputs: dict[str, Any] = {}

        def set_tensor(self, name: str, tensor: Any) -> None:
            self._inputs[name] = tensor

        def infer(self, inputs: Any = None, share_outputs: bool = False) -> dict[int, Any]:
            assert share_outputs == (inputs is None), "a copy of the outputs is not timed"
            found = self._runner.infer(self._inputs if inputs is None else inputs)
            return dict(enumerate(scale * array for array in found.values()))

    class Core:
        def read_model(self, content: bytes) -> bytes:
            return content

        def compile_model(self, content: bytes, device: str, properties: dict[str, Any]) -> Any:
            assert (device, properties["INFERENCE_PRECISION_HINT"]) == ("CPU", "f32")
            assert properties["INFERENCE_NUM_THREADS"] == properties["NUM_STREAMS"] == 1
            return SimpleNamespace(create_infer_request=lambda: Request(content))

    return SimpleNamespace(
        Core=Core, Tensor=lambda array, shared_memory: array, get_version=lambda: "1.0", __spec__=SimpleNamespace()
    )


def test_openvino_is_timed_on_the_plain_export(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", fake_openvino(1.0))
    (record,) = bench(out / "s2", BenchOptions(against=("openvino",), effort=FEW)).records
    assert record.comparison.baseline.conditions["graph"] == "plain export"


def test_a_rival_that_computes_something_else_is_not_timed_and_the_others_are(
    cli: Cli, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", fake_openvino(1.01))
    done = cli("bench", out / "s2", "--against", "openvino,naive", *QUICK)
    assert done.exit_code == 1
    assert "fp32 against openvino: not compared. It computes something else" in done.stdout
    assert questions(out / "s2") == [("fp32", "naive")]


def test_what_torch_compile_says_is_a_reason_and_not_the_end(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(network: Any) -> Any:
        def run(*arguments: Any) -> Any:
            raise RuntimeError("No C++ compiler\nand much more")

        return run

    resets: list[int] = []
    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    report = bench(out / "s2", BenchOptions(against=("compile", "naive"), effort=FEW))
    assert not report.passed
    assert report.not_compared[0].as_dict() == {
        "precision": "fp32",
        "baseline": "compile",
        "reason": "torch.compile does not take the network: No C++ compiler. Its CPU backend needs a C++ compiler.",
    }
    assert [record.comparison.baseline.label for record in report.records] == ["naive"]
    assert resets, "what the compiler keeps does not stay"


def test_what_ends_a_half_loaded_compiler_is_not_hidden_by_resetting_it(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(network: Any) -> Any:
        raise KeyboardInterrupt

    def reset() -> None:
        raise AttributeError("module 'torch._dynamo' has no attribute 'utils'")

    monkeypatch.setattr(torch, "compile", interrupted)
    monkeypatch.setattr(torch.compiler, "reset", reset)
    with pytest.raises(KeyboardInterrupt):
        bench(out / "s2", BenchOptions(against=("compile",), effort=FEW))


def test_a_compiled_network_is_called_once_before_it_is_timed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network: network)
    (record,) = bench(out / "s2", BenchOptions(against=("compile",), effort=FEW)).records
    assert record.comparison.baseline.conditions["compiled"] is True
    assert record.comparison.baseline.conditions["compile_s"] >= 0


@pytest.fixture
def own(in_folder: Path) -> Path:
    """An artifact of a network in net.py with two inputs and weights of its own, which it prints about."""
    (in_folder / "net.py").write_text(
        "import torch, deploy_attn\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.gate = deploy_attn.create('se', channels=16, reduction=4)\n"
        "    def forward(self, x, scale):\n"
        "        print('the network talks')\n"
        "        return self.gate(x) * scale, {'mean': x.mean((2, 3))}\n"
        "def build():\n"
        "    return Net()\n",
        encoding="utf-8",
    )
    torch.manual_seed(7)
    torch.save(_state(in_folder), in_folder / "net.pt")
    request = ExportRequest("net.py:build", shape=("1x16x6x5", "1x16x1x1"), checkpoint=Path("net.pt"), output=Path("a"))
    assert export_artifact(request).passed
    return Path("a")


def _state(folder: Path) -> Any:
    from deploy_attn.sources import network_from_factory

    return network_from_factory(folder / "net.py", "build").state_dict()


def test_rivals_of_a_network_of_one_s_own_need_its_files_as_they_were(cli: Cli, own: Path, in_folder: Path) -> None:
    done = cli("bench", own, "--against", "naive,eager", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert questions(own) == [("fp32", "naive"), ("fp32", "eager")]
    (in_folder / "moved").mkdir()
    for name in ("net.py", "net.pt"):
        (in_folder / name).rename(in_folder / "moved" / name)
    gone = cli("bench", own, "--against", "naive", *QUICK)
    assert gone.exit_code == 2
    assert "--checkpoint" in gone.stderr
    found = ("--source", "moved/net.py", "--checkpoint", "moved/net.pt")
    assert cli("bench", own, "--against", "naive", *found, *QUICK).exit_code == 0
    with (in_folder / "moved" / "net.py").open("a", encoding="utf-8") as stream:
        stream.write("# changed\n")
    changed = cli("bench", own, "--against", "naive", *found, *QUICK)
    assert changed.exit_code == 2
    assert "is not the net.py" in changed.stderr


def test_what_a_network_prints_does_not_fill_the_terminal(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    bench(own, BenchOptions(against=("eager",), effort=FEW))
    assert "talks" not in capsys.readouterr().out


def test_no_file_outside_the_current_folder_is_executed_for_what_a_manifest_says(own: Path, in_folder: Path) -> None:
    from deploy_attn.jetson.artifact import manifest_sha256

    manifest = json.loads((own / "manifest.json").read_text())
    manifest["source"]["file"] = "../net.py"
    manifest["manifest_sha256"] = manifest_sha256(manifest)
    (own / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedArtifact, match="names a file"):
        bench(own, BenchOptions(against=("naive",), effort=FEW, force=True, files=OwnFiles(checkpoint=Path("net.pt"))))


def test_what_the_network_does_in_place_makes_the_rival_another_function(cli: Cli, in_folder: Path) -> None:
    write_network(
        in_folder,
        "y = x.clone(); y[:, :, 1:] = y[:, :, :-1]; return self.gate(y)",
        "super().__init__()",
    )
    export_artifact(ExportRequest("net.py:build", shape="1x16x6x5", semantics="shift", output=Path("a")))
    done = cli("bench", "a", "--against", "eager,naive", *QUICK)
    assert "eager: not compared. It computes something else" in done.stdout
    assert done.exit_code == 1


def test_names_of_rivals_may_be_given_together_or_one_by_one() -> None:
    assert rivals_from_texts(["naive, eager", "compile"]) == ("naive", "eager", "compile")
    assert rivals_from_texts(None) == ()


def test_the_estimate_runs_nothing_and_says_that_it_is_one(cli: Cli, out: Path) -> None:
    done = cli("bench", out / "se", "--estimate", "--target", "jetson-nano")
    assert done.exit_code == 0
    assert "an estimate" in done.stdout
    assert not (out / "se" / "bench-onnxruntime.json").exists()
    assert json.loads(cli("bench", out / "se", "--estimate", "--target", "jetson-nano", "--json").stdout)["estimates"]


def test_threads_are_those_of_the_rivals_too(out: Path) -> None:
    options = BenchOptions(against=("naive", "eager"), threads=1, effort=FEW)
    records = bench(out / "s2", options).records
    assert records[0].comparison.baseline.conditions["intra_op_threads"] == 1
    assert records[0].comparison.baseline.conditions["spinning"] is False
    assert records[1].comparison.baseline.conditions["threads"] == 1


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_timed(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    monkeypatch.setattr(benching, "compare", None)
    with pytest.raises(BadRequest, match="cannot be written"):
        bench(out / "se", BenchOptions(effort=FEW))


def test_what_computes_something_else_since_its_verdict_is_not_timed(
    cli: Cli, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = OnnxRuntimeRunner._infer

    def wrong(self: OnnxRuntimeRunner, feeds: Any) -> Any:
        return {name: 1.01 * array for name, array in right(self, feeds).items()}

    monkeypatch.setattr(OnnxRuntimeRunner, "_infer", wrong)
    for arguments in ((out / "s2",), (out / "se", "--precision", "fp16")):
        done = cli("bench", *arguments, *QUICK)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "It computes something else" in done.stderr
        assert "Its verdict does not hold any more; run `deploy-attn verify" in done.stderr
    assert not list(out.rglob("bench-*"))


def test_a_graph_that_does_not_run_is_a_bad_request_also_by_force(
    cli: Cli, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: OnnxRuntimeRunner, feeds: Any) -> Any:
        raise RuntimeError("Non-zero status code")

    (out / "s2" / "verdict-onnxruntime.json").unlink()
    monkeypatch.setattr(OnnxRuntimeRunner, "_infer", broken)
    done = cli("bench", out / "s2", "--force", *QUICK)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "does not run: Non-zero status code" in done.stderr


@pytest.mark.parametrize("key", ["graphs", "cases"])
def test_an_artifact_with_nothing_to_time_is_damaged(out: Path, key: str) -> None:
    from deploy_attn.jetson.artifact import manifest_sha256

    file = out / "s2" / "manifest.json"
    manifest = {**json.loads(file.read_text()), key: []}
    file.write_text(json.dumps({**manifest, "manifest_sha256": manifest_sha256(manifest)}))
    with pytest.raises(DamagedArtifact, match="Export the artifact again"):
        bench(out / "s2", BenchOptions(effort=FEW, force=True))


def test_a_rival_whose_graph_onnxruntime_refuses_is_a_reason_and_not_the_end(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxsim

    def spoiled(graph: Any) -> tuple[Any, bool]:
        found = type(graph).FromString(graph.SerializeToString())
        found.graph.node[0].op_type = "NoSuchOperator"
        return found, True

    monkeypatch.setattr(onnxsim, "simplify", spoiled)
    report = bench(out / "s2", BenchOptions(against=("onnxsim", "naive"), effort=FEW))
    assert [one.baseline for one in report.not_compared] == ["onnxsim"]
    assert "onnxsim does not take this network: " in report.not_compared[0].reason
    assert [record.comparison.baseline.label for record in report.records] == ["naive"]
