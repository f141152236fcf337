"""run.py from a capsule to a verdict: every engine, every refusal, Ctrl-C, and what is left afterwards."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import pytest

from deploy_attn.jetson import engine_cache, run
from tests.jetson import capsules, fake_trtexec, stub
from tests.jetson.builds import FAKES, saved
from tests.jetson.fake_tensorrt import builder

REAL = pytest.mark.real_engine
QUICK = ("--quick", "--duration", "0.05")


class Ended:
    """A run that ended."""

    def __init__(self, code: int, stdout: str, stderr: str, place: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr
        self._verdict = os.path.join(place, "verdict.json")

    @property
    def verdict(self) -> Optional[Dict[str, Any]]:
        if not os.path.exists(self._verdict):
            return None
        with open(self._verdict) as stream:
            content: Dict[str, Any] = json.load(stream)
            return content


class Bench:
    """Runs capsules with the fake of a TensorRT, a stub of CUDA and an empty PATH, as processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": str(folder / "bin"), stub.COMPUTE_CAPABILITY: "5.3", "LC_ALL": "C"}
        self.environment["DEPLOY_ATTN_CUDART"] = stub.compiled(str(folder))
        (folder / "bin").mkdir()
        self.place = ""

    def capsule(self, **changed: Any) -> str:
        self.place = capsules.write(str(self.folder / "unpacked"), **changed)
        return self.place

    def tensorrt(self, version: str, *faults: str) -> None:
        self.environment["PYTHONPATH"] = str(FAKES / "as_{}".format(version.replace(".", "_")))
        self.environment[builder.FAULTS] = ",".join(faults)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, os.path.join(self.place, "run.py")] + list(arguments)
        pipe = subprocess.PIPE
        # A folder of its own, so that nothing depends on where it was started.
        return subprocess.Popen(command, env=self.environment, cwd=str(self.folder), stdout=pipe, stderr=pipe)

    def run(self, *arguments: str) -> Ended:
        process = self.start(*arguments)
        stdout, stderr = process.communicate()
        return Ended(process.returncode, stdout.decode("ascii"), stderr.decode("ascii"), self.place)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def left_over(place: str) -> List[str]:
    """What a run leaves that it should not."""
    return [name for name in os.listdir(place) if name.startswith(".") or "partial" in name]


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
def test_an_engine_file_that_was_damaged_is_built_again(bench: Bench) -> None:
    bench.capsule()
    bench.tensorrt("8.2")
    bench.run("--precision", "fp32", *QUICK)
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
    (("--output", "/proc/none"), {}, "Nothing can be written to /proc/none"),
    (("--pin-clocks",), {}, "--pin-clocks was asked for"),
    ((), {"with_reference": False}, "has no reference"),
    ((), {"files": {"../evil": "0"}}, "not a file inside the capsule"),
    ((), {"schema_version": 9}, "schema version 9"),
]


@pytest.mark.parametrize(("arguments", "changed", "said"), REFUSED)
def test_what_cannot_be_run_is_one_message_and_exit_code_2(
    bench: Bench, arguments: Any, changed: Dict[str, Any], said: str
) -> None:
    bench.capsule(**changed)
    (Path(bench.place) / "verdict.json").write_text("{}")
    ended = bench.run("--json", *arguments)
    assert ended.code == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    document = json.loads(ended.stdout)
    assert (document["passed"], document["exit_code"]) == (False, 2)
    assert said in document["error"]


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
    children = _children_that_build(process.pid)
    process.send_signal(number)
    stdout, stderr = process.communicate()
    assert process.returncode == code, stderr
    assert json.loads(stdout.decode("ascii"))["exit_code"] == code
    assert all(_has_ended(child) for child in children)
    assert not os.path.exists(os.path.join(bench.place, "verdict.json"))
    assert left_over(bench.place) == []


def _has_ended(pid: str) -> bool:
    """Within a while: a child that began while the signal came ends by itself, since nobody waits for it."""
    for _ in range(500):
        try:
            with open("/proc/{}/stat".format(pid)) as stream:
                if stream.read().rpartition(")")[2].split()[0] == "Z":  # in a container nobody may fetch it
                    return True
        except (OSError, IndexError):
            return True
        time.sleep(0.02)
    return False


def _children_that_build(pid: int) -> List[str]:
    """Waits until a child of this process builds; the children."""
    for _ in range(600):
        with open("/proc/{0}/task/{0}/children".format(pid)) as stream:
            children = stream.read().split()
        for child in children:
            try:
                with open("/proc/{}/cmdline".format(child), "rb") as stream:
                    if b"\0build\0" in stream.read():
                        return children
            except OSError:
                pass
        time.sleep(0.02)
    raise AssertionError("nothing was built")


def test_a_full_disk_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: "pytest.CaptureFixture[str]"
) -> None:
    def full(options: Any, folder: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/there/engine")

    monkeypatch.setattr(run, "run", full)
    assert run.main(["--json"], str(tmp_path)) == 2
    captured = capfd.readouterr()
    assert "/there/engine cannot be written: No space left on device. Make room there" in captured.err
    assert json.loads(captured.out)["exit_code"] == 2


def test_an_error_of_our_own_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: Any, folder: str) -> None:
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
