"""run.py from a capsule to a verdict: every engine, every refusal, Ctrl-C, and what is left afterwards."""

import errno
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any, Dict, Iterator

import numpy as np
import pytest

from deploy_attn.jetson import arguments, engine_cache, output_folder, run
from deploy_attn.jetson.errors import BadRequest
from tests.jetson import capsules, fake_trtexec, stub
from tests.jetson.builds import gate, saved
from tests.jetson.fake_tensorrt import builder
from tests.jetson.runs import Bench, children_that_build, has_ended, left_over, wait_for

REAL = pytest.mark.real_engine
QUICK = ("--quick", "--duration", "0.05")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path) as started:
        yield started


@REAL
@pytest.mark.parametrize("version", ["8.0", "8.2", "8.5", "10", "11"])
def test_each_tensorrt_builds_compares_and_times(bench: Bench, version: str) -> None:
    bench.capsule(typed=True)
    bench.tensorrt(version)
    ended = bench.run(*QUICK)
    assert ended.code == 0, ended.stderr
    verdict = ended.verdict
    assert verdict is not None
    assert verdict["passed"]
    assert [(one["graph"], one["bracket"], one["case"]) for one in verdict["checks"]] == [
        ("model.onnx", "exact", "normal"),
        ("model.onnx", "exact", "other"),
        ("model.fp16.onnx" if version == "11" else "model.onnx", "device", "normal"),
        ("model.fp16.onnx" if version == "11" else "model.onnx", "device", "other"),
    ]
    assert verdict["conditions"]["device"]["compute_capability"] == "5.3"
    assert verdict["timing"]["fp16"]["compute"]["n"] > 0
    assert verdict["power"]["fp16"] == {"refused": "Not measured: --quick."}
    assert verdict["seconds"]["to_first_result"] > 0
    assert ended.stdout.splitlines()[-1].startswith("PASS  4 of 4 checks hold in tensorrt {}".format(version))
    assert left_over(bench.place) == []


@REAL
def test_an_engine_is_kept_and_built_again_when_something_it_is_made_from_changed(bench: Bench) -> None:
    bench.capsule()
    bench.tensorrt("8.2")
    only = ("--precision", "fp32") + QUICK
    assert bench.run(*only).code == 0
    again = bench.run(*only)
    assert "is there already" in again.stderr
    assert again.verdict is not None
    assert again.verdict["builds"]["fp32"]["from_cache"]
    assert "is there already" not in bench.run("--rebuild", *only).stderr
    assert "is there already" not in bench.run("--workspace", "32", *only).stderr
    bench.tensorrt("8.5")
    assert "is there already" not in bench.run(*only).stderr


@REAL
def test_an_engine_of_another_gpu_is_not_taken(bench: Bench) -> None:
    bench.capsule(facts={"device.compute_capability": None})
    bench.tensorrt("8.2")
    for capability in ("5.3", "7.2"):
        bench.environment[stub.COMPUTE_CAPABILITY] = capability
        ended = bench.run("--precision", "fp32", *QUICK)
        assert ended.code == 0, ended.stderr
        assert "is there already" not in ended.stderr


@pytest.mark.parametrize(("given", "seconds"), [((), 10.0), (("--quick",), 1.0), (("--quick", "--duration", "3"), 3.0)])
def test_the_seconds_are_those_that_are_asked_for_or_of_quick(given: Any, seconds: float) -> None:
    assert arguments.parse(given, "there").duration == seconds


@REAL
def test_an_engine_file_that_was_damaged_is_built_again(bench: Bench) -> None:
    bench.capsule()
    bench.tensorrt("8.2")
    first = bench.run("--precision", "fp32", *QUICK)
    assert first.code == 0, first.stderr
    (file,) = Path(bench.place).glob("*.engine")
    content = file.read_bytes()
    damaged = content[:-1] + b"?"
    file.write_bytes(damaged)
    ended = bench.run("--precision", "fp32", *QUICK)
    assert ended.code == 0, ended.stderr
    assert file.read_bytes() != damaged


@REAL
def test_json_is_one_document_on_stdout_and_what_is_in_the_file(bench: Bench) -> None:
    bench.capsule()
    bench.tensorrt("8.2", builder.CHATTY)
    ended = bench.run("--json", *QUICK)
    assert json.loads(ended.stdout) == ended.verdict


@REAL
def test_onnxruntime_runs_where_there_is_no_gpu_and_on_a_board_of_another_kind(bench: Bench) -> None:
    bench.capsule()
    bench.environment[stub.COMPUTE_CAPABILITY] = "8.7"
    ended = bench.run("--engine", "onnxruntime", *QUICK)
    assert ended.code == 0, ended.stderr
    assert ended.verdict is not None
    assert [one["precision"] for one in ended.verdict["checks"]] == ["fp32", "fp32"]
    assert "fp16 was not run: onnxruntime takes fp16 from a typed graph" in ended.verdict["warnings"][0]


@REAL
def test_a_target_of_onnxruntime_runs_it_without_being_asked(bench: Bench) -> None:
    bench.capsule(engine="onnxruntime", typed=True)
    ended = bench.run(*QUICK)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.splitlines()[-1].startswith("PASS  4 of 4 checks hold in onnxruntime")


@REAL
def test_results_go_where_output_says_and_nothing_into_a_capsule_that_cannot_be_written(bench: Bench) -> None:
    bench.capsule()
    before = sorted(os.listdir(bench.place))
    output = bench.folder / "results" / "here"
    ended = bench.run("--engine", "onnxruntime", "--output", str(output), *QUICK)
    assert ended.code == 0, ended.stderr
    assert sorted(os.listdir(str(output))) == ["run.log", "verdict.json"]
    assert sorted(os.listdir(bench.place)) == before


@REAL
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_a_number_fails(bench: Bench, value: float) -> None:
    from onnx import helper

    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"], "scale")]
    bench.capsule(model=saved(nodes, (1, 4, 8, 8), {"factor": np.full((1,), value, np.float32)}))
    ended = bench.run("--engine", "onnxruntime", *QUICK)
    assert ended.code == 1
    assert ended.verdict is not None
    assert not ended.verdict["passed"]
    assert "256 values are NaN or Inf, the first at (0, 0, 0, 0)" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("FAIL  0 of 2 checks hold")


@REAL
def test_an_output_that_is_wrong_fails_and_is_timed_all_the_same(bench: Bench) -> None:
    bench.capsule(reference=lambda x: capsules.expected(x) + np.float32(1))
    ended = bench.run("--engine", "onnxruntime", *QUICK)
    assert ended.code == 1
    assert ended.verdict is not None
    assert ended.verdict["timing"]["fp32"]["end_to_end"]["n"] > 0


def test_every_error_of_the_parser_is_shown_and_the_verdict_says_fail(bench: Bench) -> None:
    from onnx import helper

    # Two that no parser knows, after one that it does.
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "fine"),
        helper.make_node("NoSuchOperator", ["a"], ["b"], "first"),
        helper.make_node("Det", ["b"], ["y"], "second"),
    ]
    bench.capsule(model=saved(nodes, (1, 4, 8, 8)))
    bench.tensorrt("10")
    ended = bench.run(*QUICK)
    assert ended.code == 1
    assert ended.verdict is not None
    assert len(ended.verdict["problems"]) == 2
    for text in (ended.stderr, ended.stdout, ended.verdict["problems"][0]):
        assert "The parser of TensorRT 10.3.0 refuses this graph:" in text
        assert "'first' (NoSuchOperator)" in text
        assert "'second' (Det)" in text
    assert [one["error"] is not None for one in ended.verdict["checks"]] == [True, True]
    assert left_over(bench.place) == []


@REAL
def test_a_fault_while_it_runs_is_a_finding_and_named_as_what_it_was(bench: Bench) -> None:
    bench.capsule()
    bench.tensorrt("8.2")
    # From there on every call fails, as on a device after an illegal access.
    bench.environment[stub.FAIL] = "cudaStreamSynchronize=700@3 cudaFree=700 cudaStreamDestroy=700"
    ended = bench.run("--precision", "fp32", *QUICK)
    assert ended.code == 1, ended.stderr
    assert ended.verdict is not None
    (check,) = ended.verdict["checks"]
    assert check["error"].startswith("the engine refused the graph: cudaStreamSynchronize failed with CUDA error 700")
    assert ended.verdict["timing"] == {}


def test_a_builder_that_the_system_kills_is_said_to_be_that_with_remedies(bench: Bench) -> None:
    bench.capsule()
    bench.tensorrt("8.2", builder.KILLED)
    ended = bench.run(*QUICK)
    assert ended.code == 1
    assert "was killed (SIGKILL), as the system does when memory runs out" in ended.stderr
    remedies = [ended.stderr.index("  {}. ".format(number)) for number in (1, 2, 3, 4)]
    assert remedies == sorted(remedies)
    assert left_over(bench.place) == []


@REAL
def test_trtexec_takes_over_where_the_module_is_not_and_says_so(bench: Bench) -> None:
    bench.capsule()
    fake_trtexec.install(str(bench.folder / "bin"), "8.2.1")
    ended = bench.run(*QUICK)
    assert ended.code == 0, ended.stderr
    assert ended.verdict is not None
    assert ended.verdict["engine"] == "trtexec"
    said = " ".join(ended.verdict["warnings"])
    assert "TensorRT's Python module is not here" in said
    assert "fp16 was not run: trtexec 8.2.1 cannot keep single layers in FP32" in said
    assert [one["precision"] for one in ended.verdict["checks"]] == ["fp32", "fp32"]


REFUSED = [
    ((), {}, "None of the engines tensorrt, trtexec, onnxruntime can be used"),
    (("--engine", "trtexec"), {}, "trtexec is neither at"),
    (("--engine", "tensorrt"), {}, "TensorRT was asked for and cannot be imported"),
    pytest.param(
        ("--engine", "onnxruntime", "--precision", "fp16"), {}, "cannot be run in fp16 with onnxruntime", marks=REAL
    ),
    (("--engine", "none"), {}, "invalid choice: 'none'"),
    (("--duration", "0"), {}, "'0' is not a number of seconds"),
    (("--duration", "nan"), {}, "'nan' is not a number of seconds"),
    (("--workspace", "a"), {}, "'a' is not a number of MiB"),
    (("--workspace", os.fsdecode(b"\xc2\xb2")), {}, "is not a number of MiB, as 64"),  # a digit that is no number
    (("--output", "/proc/none"), {}, "Nothing can be written to /proc/none"),
    (("--pin-clocks",), {}, "--pin-clocks was asked for"),
    ((), {"with_reference": False}, "has no reference"),
    ((), {"files": {"../evil": "0"}}, "not a file inside the capsule"),
    ((), {"schema_version": 9}, "schema version 9"),
]


@pytest.mark.parametrize(("given", "changed", "said"), REFUSED)
def test_what_cannot_be_run_is_one_message_and_exit_code_2(
    bench: Bench, given: Any, changed: Dict[str, Any], said: str
) -> None:
    bench.capsule(**changed)
    (Path(bench.place) / "verdict.json").write_text("{}")
    ended = bench.run("--json", *given)
    assert ended.code == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    document = json.loads(ended.stdout)
    assert (document["passed"], document["exit_code"]) == (False, 2)
    assert said in document["error"]


def test_a_manifest_that_no_export_writes_is_said_before_anything_is_built(bench: Bench) -> None:
    bench.capsule(manifest={"tolerances": {}})
    bench.tensorrt("8.2")
    ended = bench.run(*QUICK)
    assert (ended.code, ended.verdict) == (1, None)
    assert "is malformed: 'tolerances' lacks one of" in ended.stderr
    assert "engine in" not in ended.stderr


def test_a_capsule_without_its_plan_is_a_mistake_and_no_failed_check(bench: Bench) -> None:
    files = {"model.onnx": hashlib.sha256(gate()).hexdigest(), "model.fp16.onnx": "0" * 64, "reference.npz": "0" * 64}
    bench.capsule(manifest={"files": files})
    bench.tensorrt("8.2")
    ended = bench.run("--precision", "fp16", *QUICK)
    assert (ended.code, ended.verdict) == (2, None)
    assert "FP16 takes precision_plan.json, which gate does not have" in ended.stderr


@REAL
def test_a_graph_that_onnxruntime_cannot_load_is_a_mistake_and_no_failed_check(bench: Bench) -> None:
    from onnx import helper

    bench.capsule(model=saved([helper.make_node("NoSuchOperator", ["x"], ["y"], "none")], (1, 4, 8, 8)))
    ended = bench.run("--engine", "onnxruntime", *QUICK)
    assert (ended.code, ended.verdict) == (2, None)
    assert "cannot load this graph" in ended.stderr


@pytest.mark.parametrize(
    ("facts", "version", "said"),
    [
        ({"device.compute_capability": "8.7"}, "8.2", "is for board with compute capability 8.7;"),
        ({"runtime.tensorrt": "10.3.0"}, "8.5", "is for board with TensorRT 10.3.0; here is 8.5"),
    ],
)
def test_another_board_than_the_targets_is_refused(
    bench: Bench, facts: Dict[str, str], version: str, said: str
) -> None:
    bench.capsule(facts=facts)
    bench.tensorrt(version)
    ended = bench.run(*QUICK)
    assert (ended.code, ended.verdict) == (2, None)
    assert said in ended.stderr
    assert "--engine onnxruntime" in ended.stderr


def test_a_tampered_capsule_is_not_run(bench: Bench) -> None:
    bench.capsule()
    bench.tensorrt("8.2")
    with open(os.path.join(bench.place, "artifact", "model.onnx"), "ab") as stream:
        stream.write(b"\0")
    ended = bench.run(*QUICK)
    assert (ended.code, ended.stdout) == (2, "")
    assert "artifact/model.onnx: changed since it was bundled" in ended.stderr
    assert list(Path(bench.place).glob("*.engine")) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_child_and_leaves_no_verdict(bench: Bench, number: int, code: int) -> None:
    bench.capsule()
    (Path(bench.place) / "verdict.json").write_text("{}")
    bench.tensorrt("10", builder.SLOW)
    process = bench.start("--json", *QUICK)
    children = children_that_build(process.pid)
    process.send_signal(number)
    stdout, stderr = process.communicate()
    assert process.returncode == code, stderr
    assert json.loads(stdout.decode("ascii"))["exit_code"] == code
    assert all(has_ended(child) for child in children)
    assert not os.path.exists(os.path.join(bench.place, "verdict.json"))
    assert left_over(bench.place) == []


def test_a_full_disk_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: "pytest.CaptureFixture[str]"
) -> None:
    def full(options: Any, folder: str, root: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/there/engine")

    monkeypatch.setattr(run, "run", full)
    assert run.main(["--json"], str(tmp_path)) == 2
    captured = capfd.readouterr()
    assert "/there/engine cannot be written: No space left on device. Make room there" in captured.err
    assert json.loads(captured.out)["exit_code"] == 2


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "Make room there"),
        (errno.EDQUOT, "Make room there"),
        (errno.EFBIG, "Make room there"),
        (errno.EROFS, "Give permission"),
        (errno.EACCES, "Give permission"),
        (errno.EEXIST, "Take away what is in its place"),
        (errno.EISDIR, "Take away what is in its place"),
    ],
)
def test_what_to_do_depends_on_why_a_folder_cannot_be_written(
    number: int, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: str) -> None:
        raise OSError(number, os.strerror(number), folder)

    expected = "{}. {}, or name another folder with --output.".format(os.strerror(number), hint)
    assert str(output_folder.cannot_write(OSError(number, os.strerror(number), "there"))).endswith(expected)
    monkeypatch.setattr(os, "makedirs", refused)
    with pytest.raises(BadRequest) as raised:
        output_folder.check_output(str(tmp_path / "new"))
    assert str(raised.value) == "Nothing can be written to {}: {}".format(tmp_path / "new", expected)


@REAL
@pytest.mark.parametrize("name", ["verdict.json", "run.log"])
def test_a_folder_in_the_place_of_a_result_is_said(bench: Bench, name: str) -> None:
    bench.capsule()
    (bench.folder / "results" / name).mkdir(parents=True)
    ended = bench.run("--engine", "onnxruntime", "--output", str(bench.folder / "results"), *QUICK)
    assert ended.code == 2
    assert "results/{} cannot be written: Is a directory. Take away".format(name) in ended.stderr


@REAL
@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (100, "Nothing can be written to "),
        (4096, "the folder of the results cannot be written"),  # as much as is tried at the start, and no verdict
    ],
)
def test_a_disk_that_is_or_gets_full_is_said(bench: Bench, limit: int, said: str) -> None:
    import resource

    bench.capsule()
    ended = bench.run(
        "--engine", "onnxruntime", *QUICK, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert (ended.code, ended.verdict, ended.stdout) == (2, None, "")
    assert ended.stderr.splitlines()[-1].startswith("run.py: " + said)
    assert "File too large. Make room there" in ended.stderr
    assert left_over(bench.place) == []


@REAL
@pytest.mark.parametrize("streams", [("stdout",), ("stderr",), ("stdout", "stderr")])
@pytest.mark.parametrize("given", [QUICK, ("--json",) + QUICK])
def test_a_reader_that_left_changes_no_exit_code(bench: Bench, streams: Any, given: Any) -> None:
    bench.capsule()
    bench.tensorrt("8.2", builder.CHATTY)
    nobody, left = os.pipe()
    os.close(nobody)
    ended = bench.run(*given, **dict.fromkeys(streams, left))
    os.close(left)
    assert ended.code == 0
    assert ended.verdict is not None
    assert ended.verdict["passed"]


@pytest.mark.parametrize(("given", "code"), [(("--help",), 0), (("--json", "--none"), 2)])
def test_a_reader_that_left_before_anything_began_changes_no_exit_code(bench: Bench, given: Any, code: int) -> None:
    bench.capsule()
    nobody, left = os.pipe()
    os.close(nobody)
    ended = bench.run(*given, stdout=left)
    os.close(left)
    assert ended.code == code
    assert "Exception ignored" not in ended.stderr


@REAL
def test_a_capsule_runs_from_a_path_of_any_letters_in_a_bare_locale(bench: Bench) -> None:
    bench.capsule()
    odd = os.fsdecode("\u00e4 b\u6f22".encode("utf-8"))  # of whatever locale this test has
    os.rename(bench.place, str(bench.folder / odd))
    bench.place = str(bench.folder / odd)
    bench.tensorrt("8.2")
    ended = bench.run("--output", os.path.join(bench.place, odd), *QUICK)
    assert ended.code == 0, ended.stderr
    assert os.path.isfile(os.path.join(bench.place, odd, "verdict.json"))


@REAL
def test_a_second_run_in_a_folder_is_refused_and_leaves_the_first_alone(bench: Bench) -> None:
    bench.capsule()
    first = bench.start("--engine", "onnxruntime", "--quick", "--duration", "2")
    wait_for(first, "timing: ")
    second = bench.run("--engine", "onnxruntime", *QUICK)
    assert second.code == 2
    assert "Another run is at work in {}".format(bench.place) in second.stderr
    ended = bench.ended(first)
    assert ended.code == 0, ended.stderr
    assert ended.verdict is not None
    log = Path(bench.place, "run.log").read_text()
    assert log.count("every file is as it was bundled") == 1
    assert bench.run("--engine", "onnxruntime", *QUICK).code == 0
    assert Path(bench.place, "run.log").read_text().count("every file is as it was bundled") == 1


@REAL
def test_a_signal_that_nohup_ignores_does_not_end_the_run(bench: Bench) -> None:
    bench.capsule()
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = bench.start("--engine", "onnxruntime", "--quick", "--duration", "0.5", **ignored)
    wait_for(process, "timing: ")
    process.send_signal(signal.SIGHUP)
    ended = bench.ended(process)
    assert ended.code == 0, ended.stderr


def test_what_native_code_prints_does_not_mix_with_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: "pytest.CaptureFixture[str]"
) -> None:
    def noisy(options: Any, folder: str, root: str) -> None:
        os.write(1, b"noise of a library\n")
        raise BadRequest("There is nothing to run.")

    monkeypatch.setattr(run, "run", noisy)
    assert run.main(["--json"], str(tmp_path)) == 2
    os.write(1, b"what comes later\n")
    captured = capfd.readouterr()
    assert "noise of a library" in captured.err
    document, _, later = captured.out.partition("}\n")
    assert json.loads(document + "}")["error"] == "There is nothing to run."
    assert later == "what comes later\n"


def test_an_error_of_our_own_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: Any, folder: str, root: str) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(run, "run", broken)
    with pytest.raises(OSError, match="Bad file"):
        run.main([], str(tmp_path))


def test_a_cached_engine_of_another_key_is_not_taken(tmp_path: Path) -> None:
    path = engine_cache.engine_path(str(tmp_path), "tensorrt", "fp16", "a" * 64)
    engine_cache.store(path, "a" * 64, b"engine", {"seconds": 1.0})
    found = engine_cache.find(path, "a" * 64)
    assert found is not None
    assert (found.content, found.from_cache, found.facts["seconds"]) == (b"engine", True, 1.0)
    assert engine_cache.find(path, "b" * 64) is None
    beside = path.replace(".engine", ".json")
    Path(beside).write_text(Path(beside).read_text().replace("1.0", "2.0"))
    assert engine_cache.find(path, "a" * 64) is None
    assert engine_cache.find(path + ".none", "a" * 64) is None
