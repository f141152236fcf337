"""trtexec of each version, as a program that refuses what its version has not, and writes what its version writes."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from deploy_attn.jetson import trtexec, trtexec_build
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.timing import Options, notes, summary
from deploy_attn.jetson.trtexec import Tool
from deploy_attn.jetson.trtexec_engine import TrtexecEngine
from deploy_attn.jetson.trtexec_files import ROUNDING, read_outputs, read_times
from deploy_attn.jetson.trtexec_process import LOG
from tests.jetson import fake_trtexec as fake
from tests.jetson.onnx_bytes import scaled_relu

EACH_RELEASE = pytest.mark.parametrize("release", fake.RELEASES)
EVERY_LISTED = ["8.0.1", "8.2.1", "8.4.3", "8.5.3", "8.6.1", "10.0.1", "10.3.0", "10.7.0", "10.13.3", "10.16.0"]
EVERY_LISTED += ["11.0.0", "11.1.0"]
PLAN = {"mean": "fp32", "conv": "fp16", "/gate/Mul": "fp16"}
ALL_HALF = {"mean": "fp16", "conv": "fp16"}
ONES = np.ones((2, 3), np.float32)
QUICK = Options(duration=1.0)


def model(**changed: Any) -> bytes:
    """x -> y, three times x."""
    said: Dict[str, Any] = {"input": "x", "output": "y", "shape": [2, 3], "factor": 3}
    said["nodes"] = {"mean": "FLOAT", "conv": "HALF", "/gate/Mul": "HALF"}
    said.update(changed)
    return json.dumps(said).encode("ascii")


class Bench:
    """A folder with a model, and a trtexec beside it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self._calls = folder / "calls"
        patch.setenv(fake.CALLS, str(self._calls))
        self.write(model())

    def write(self, content: bytes) -> None:
        (self.folder / "model.onnx").write_bytes(content)

    def tool(self, release: str) -> Tool:
        return trtexec.open_tool(fake.install(str(self.folder), release))

    def build(self, release: str, **request: Any) -> Dict[str, Any]:
        return trtexec_build.build(self.tool(release), str(self.folder), request)

    def engine(self, release: str, **request: Any) -> TrtexecEngine:
        assert self.build(release, **request)["built"]
        return TrtexecEngine(self.tool(release), str(self.folder / "engine"), request.get("profile"))

    def fault(self, *names: str) -> None:
        self._patch.setenv(fake.FAULTS, ",".join(names))

    def calls(self) -> List[List[str]]:
        """The flags of each call but those that asked for the version."""
        lines = self._calls.read_text().splitlines()
        return [call for call in map(json.loads, lines) if call != ["--help"]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("number", "version"),
    [
        (8001, (8, 0, 1)),
        (8205, (8, 2, 5)),
        (8502, (8, 5, 2)),
        (8510, (8, 5, 10)),
        (100300, (10, 3, 0)),
        (101602, (10, 16, 2)),
        (110100, (11, 1, 0)),
    ],
)
def test_the_banner_tells_the_version(tmp_path: Path, number: int, version: Any) -> None:
    path = tmp_path / "trtexec"
    path.write_text("#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v{}] # trtexec --help'\n".format(number))
    path.chmod(0o755)
    assert trtexec.open_tool(str(path)).version == version


@EACH_RELEASE
def test_a_fake_of_each_release_is_told_apart(bench: Bench, release: str) -> None:
    assert bench.tool(release).version == fake.numbers(release)


def test_jetpacks_own_place_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, path = tmp_path / "root" / "usr" / "src" / "tensorrt" / "bin", tmp_path / "bin"
    for folder, release in ((place, "8.2.1"), (path, "10.3.0")):
        folder.mkdir(parents=True)
        fake.install(str(folder), release)
    monkeypatch.setenv("PATH", str(path))
    assert trtexec.find(str(tmp_path / "root")) == (str(place / "trtexec"), (8, 2, 1))
    (place / "trtexec").chmod(0o644)
    assert trtexec.find(str(tmp_path / "root")) == (str(path / "trtexec"), (10, 3, 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadRequest, match="sudo apt install libnvinfer-bin"):
        trtexec.find(str(tmp_path / "root"))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'error while loading shared libraries: libnvinfer.so.8' >&2\nexit 127", "loading shared libraries"),
        ("echo '&&&& RUNNING TensorRT.trtexec # trtexec --help'", "does not say which TensorRT"),
        ("exit 1", "it said: nothing"),
        ("echo '&&&& RUNNING TensorRT.trtexec [TensorRT v7103] # trtexec'", "TensorRT 7.1.3; 8.0 or newer"),
    ],
)
def test_a_trtexec_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, script: str, said: str) -> None:
    path = tmp_path / "trtexec"
    path.write_text("#!/bin/sh\n{}\n".format(script))
    path.chmod(0o755)
    with pytest.raises(BadRequest, match=said):
        trtexec.open_tool(str(path))


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trtexec"
    path.write_bytes(b"\x7fELF of another machine")
    path.chmod(0o755)
    with pytest.raises(BadRequest, match="does not start"):
        trtexec.open_tool(str(path))


@pytest.mark.parametrize("release", EVERY_LISTED)
def test_every_flag_that_is_passed_exists_in_the_version(bench: Bench, release: str) -> None:
    """The flags of each release are those of its source; the fake refuses any other, and this names them."""
    version, profile = fake.numbers(release), {"x": [[1, 3], [2, 3], [4, 3]]}
    request: Dict[str, Any] = {"profile": profile, "workspace_bytes": 64 << 20, "timing_cache": "cache"}
    if version >= (10,):
        request.update(precision="fp16", typed=True)
    else:
        request.update(precision="fp16", plan=PLAN if version >= (8, 4) else ALL_HALF)
    engine = bench.engine(release, **request)
    engine.infer({"x": ONES})
    engine.time({"x": ONES}, QUICK)
    passed = {flag.partition("=")[0] for call in bench.calls() for flag in call}
    assert passed - set(fake.known_flags(release)) == set()
    assert {"--onnx", "--loadEngine", "--exportTimes", "--exportOutput", "--optShapes"} <= passed


@pytest.mark.parametrize("release", EVERY_LISTED)
def test_the_table_of_flags_claims_nothing_that_a_release_does_not_have(release: str) -> None:
    tool, known = Tool("trtexec", fake.numbers(release)), fake.known_flags(release)  # type: ignore[arg-type]
    assert [flag for flag in trtexec._FLAGS if tool.has(flag) and "--" + flag not in known] == []


@pytest.mark.parametrize(
    ("release", "flag"),
    [
        ("8.0.1", "--workspace=64"),
        ("8.2.1", "--workspace=64"),
        ("8.4.3", "--memPoolSize=workspace:64"),
        ("11.1.0", "--memPoolSize=workspace:64"),
        ("8.5.3", "--buildOnly"),
        ("8.6.1", "--skipInference"),
        ("8.0.1", "--explicitBatch"),
        ("8.0.1", "--verbose"),
        ("8.2.1", "--profilingVerbosity=detailed"),
        ("8.2.1", "--noTF32"),
    ],
)
def test_a_version_gets_the_flag_that_it_has(bench: Bench, release: str, flag: str) -> None:
    assert bench.build(release, workspace_bytes=64 << 20)["built"]
    assert flag in bench.calls()[0]


def test_a_build_keeps_to_profile_and_timing_cache(bench: Bench) -> None:
    bench.build("8.2.1", profile={"x": [[1, 3], [2, 3], [4, 3]]}, timing_cache="cache")
    call = bench.calls()[0]
    assert {"--minShapes=x:1x3", "--optShapes=x:2x3", "--maxShapes=x:4x3"} <= set(call)
    assert "--timingCacheFile=" + os.path.abspath("cache") in call


@EACH_RELEASE
def test_a_build_answers_as_the_python_builder_does(bench: Bench, release: str) -> None:
    lines: List[str] = []
    outcome = trtexec_build.build(bench.tool(release), str(bench.folder), {}, lines.append)
    from deploy_attn.jetson.tensorrt_build import blank_outcome

    assert set(outcome) == set(blank_outcome())
    assert (outcome["built"], outcome["version"], outcome["refusals"]) == (True, release, [])
    assert outcome["layers_from"] == ("log" if release == "8.0.1" else "inspector")
    assert [layer["name"] for layer in outcome["layers"]] == ["mean", "conv", "/gate/Mul"]
    assert ["WARNING", "a warning that means nothing"] in outcome["messages"]
    assert (bench.folder / "engine").stat().st_size > 0
    log = (bench.folder / LOG).read_text()
    assert log.splitlines() == lines
    assert "TensorRT version: " + release in log


@pytest.mark.parametrize("release", ["8.4.3", "8.5.3", "8.6.1", "10.3.0"])
def test_fp16_keeps_the_plans_fp32_nodes_in_fp32(bench: Bench, release: str) -> None:
    outcome = bench.build(release, precision="fp16", plan=PLAN)
    assert outcome["precision_problems"] == []
    assert [layer["outputs"] for layer in outcome["layers"]] == [["float"], ["half"], ["half"]]


@pytest.mark.parametrize("release", ["10.3.0", "11.1.0"])
def test_fp16_of_a_typed_graph_comes_from_its_types(bench: Bench, release: str) -> None:
    outcome = bench.build(release, precision="fp16", typed=True, plan=PLAN)
    assert outcome["precision_problems"] == []
    assert [layer["outputs"] for layer in outcome["layers"]] == [["float"], ["half"], ["half"]]
    assert ("--stronglyTyped" in bench.calls()[0]) == (release == "10.3.0")
    assert "--fp16" not in bench.calls()[0]


@pytest.mark.parametrize("release", ["8.0.1", "8.2.1"])
def test_fp16_before_8_4_takes_a_plan_without_fp32_nodes(bench: Bench, release: str) -> None:
    outcome = bench.build(release, precision="fp16", plan=ALL_HALF)
    assert outcome["built"]
    assert outcome["precision_problems"] == []
    assert not any(flag.startswith("--precisionConstraints") for flag in bench.calls()[0])


@pytest.mark.parametrize(
    ("release", "request_", "said"),
    [
        ("8.0.1", {"precision": "fp16", "plan": PLAN}, r"--layerPrecisions comes with 8.4.*1 nodes there \(mean\)"),
        ("8.2.1", {"precision": "fp16", "plan": PLAN}, "python3-libnvinfer"),
        ("8.6.1", {"precision": "fp16", "typed": True}, "no strongly typed networks"),
        ("11.1.0", {"precision": "fp16", "plan": PLAN}, "model.fp16.onnx"),
        ("8.5.3", {"precision": "fp16"}, "--fp16"),
        ("8.5.3", {"precision": "fp16", "plan": {"a:b": "fp32"}}, "no way to write these names: a:b"),
        ("8.5.3", {"precision": "fp16", "plan": {"a,b": "fp32"}}, "no way to write"),
        ("8.5.3", {"profile": {"x:0": [[1], [1], [2]]}}, "no way to write these names: x:0"),
        ("10.3.0", {"version_compatible": True}, "version_compatible"),
        ("10.3.0", {"hardware_compatible": True}, "hardware_compatible"),
        ("10.3.0", {"compute_capability": "SM86"}, "compute_capability"),
    ],
)
def test_what_a_version_cannot_do_is_refused_before_it_is_started(
    bench: Bench, release: str, request_: Dict[str, Any], said: str
) -> None:
    tool = bench.tool(release)
    with pytest.raises(BadRequest, match=said):
        trtexec_build.build(tool, str(bench.folder), request_)
    assert bench.calls() == []


@pytest.mark.parametrize(
    ("fault", "release", "said"),
    [
        (fake.SILENTLY_FP32, "8.6.1", "silently FP32"),
        (fake.IGNORES_PLAN, "8.6.1", "Layer 'mean' makes FP16 outputs"),
        (fake.NO_LAYERS, "8.0.1", "no layers"),
        (fake.NO_LAYERS, "8.6.1", "did not write layers.json"),
    ],
)
def test_an_engine_that_is_not_as_planned_is_found(bench: Bench, fault: str, release: str, said: str) -> None:
    bench.fault(fault)
    outcome = bench.build(release, precision="fp16", plan=PLAN if release != "8.0.1" else ALL_HALF)
    assert outcome["built"]
    assert len(outcome["precision_problems"]) == 1
    assert said in outcome["precision_problems"][0]


def test_layers_that_are_not_shown_are_no_problem_of_fp32(bench: Bench) -> None:
    bench.fault(fake.NO_LAYERS)
    assert bench.build("8.6.1")["precision_problems"] == []


def test_layers_that_a_build_does_not_show_are_read_from_the_loaded_engine(bench: Bench) -> None:
    bench.fault(fake.LATE_LAYERS)
    outcome = bench.build("8.2.1", profile={"x": [[1, 3], [2, 3], [4, 3]]})
    assert [layer["name"] for layer in outcome["layers"]] == ["mean", "conv", "/gate/Mul"]
    assert {"--loadEngine=engine", "--shapes=x:2x3"} <= set(bench.calls()[1])


def test_every_error_of_the_parser_is_told(bench: Bench) -> None:
    bench.fault(fake.UNPARSED)
    outcome = bench.build("8.2.1")
    assert not outcome["built"]
    assert {(refusal["node"], refusal["operator"]) for refusal in outcome["refusals"]} == {("number 3", "Det")}
    assert "importFallbackPlugin [8] Assertion failed" in outcome["refusals"][-1]["reason"]
    assert not (bench.folder / "engine").exists()


def test_a_builder_that_fails_after_parsing_leaves_its_errors_and_no_refusal(bench: Bench) -> None:
    bench.fault(fake.NOT_BUILT)
    outcome = bench.build("8.2.1")
    assert (outcome["built"], outcome["refusals"]) == (False, [])
    assert ["ERROR", "10: Could not find any implementation for node conv."] in outcome["messages"]


def test_a_build_that_fails_leaves_no_engine_behind(bench: Bench) -> None:
    bench.fault(fake.FAILS_LATE)
    outcome = bench.build("8.2.1")
    assert not outcome["built"]
    assert not (bench.folder / "engine").exists()
    assert ["ERROR", "Saving engine to file failed."] in outcome["messages"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (fake.KILLED, r"was killed \(SIGKILL\)(.|\n)*MiB were available(.|\n)*1\. run without a desktop"),
        (fake.OUT_OF_MEMORY, r"ran out of memory \(.*OutOfMemory(.|\n)*4\. "),
        (fake.BAD_ALLOC, r"ran out of memory (.|\n)*1\. run without a desktop"),
        (fake.CRASHED, r"trtexec 8.2.1 failed \(SIGSEGV"),
        (fake.NO_ENGINE, r"trtexec 8.2.1 failed \(exit code 0"),
        (fake.STRIPPED, "refuses the flags --noTF32"),
    ],
)
def test_a_build_that_ends_badly_says_how(bench: Bench, fault: str, said: str) -> None:
    (bench.folder / "engine").write_bytes(b"of an earlier build")
    bench.fault(fault)
    with pytest.raises(DeployAttnError, match=said) as caught:
        bench.build("8.2.1")
    assert caught.value.exit_code == 1
    assert not (bench.folder / "engine").exists()


def test_an_interrupted_build_ends_its_trtexec(bench: Bench) -> None:
    code = (
        "import sys; sys.path[:0] = {3!r}\n"
        "from {0} import open_tool\n"
        "from {0}_build import build\n"
        "build(open_tool({1!r}), {2!r}, {{}}, lambda line: print(line, flush=True))\n"
    ).format(trtexec.__name__, fake.install(str(bench.folder), "8.2.1"), str(bench.folder), sys.path)
    bench.fault(fake.SLOW)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if b"TensorRT version" in line:
            break
    (child,) = [pid for pid in running_in(str(bench.folder)) if int(pid) != process.pid]
    assert os.getsid(int(child)) != os.getsid(process.pid), "a Ctrl-C at the terminal would reach it too"
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 10, "it waited for the child, which sleeps for 30 s"
    assert b"KeyboardInterrupt" in errors
    assert process.returncode != 0
    assert running_in(str(bench.folder)) == []


def running_in(folder: str) -> List[str]:
    """Processes whose command line names a folder."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with io.open("/proc/{}/cmdline".format(entry), "rb") as stream:
                    command = stream.read().decode("utf-8", "replace")
            except OSError:
                continue
            if os.path.join(folder, "trtexec") in command:
                found.append(entry)
    return found


@EACH_RELEASE
def test_an_engine_computes_what_it_is_fed(bench: Bench, release: str) -> None:
    engine = bench.engine(release)
    feed = np.array([[1.25, -2, 3], [1e-9, 123456.78, -0.0]], np.float32)
    outputs = engine.infer({"x": np.asfortranarray(feed)})
    assert list(outputs) == ["y"]
    assert outputs["y"].dtype == np.float32
    assert outputs["y"].shape == (2, 3)
    np.testing.assert_allclose(outputs["y"], feed * 3, rtol=ROUNDING, atol=0)


def test_text_outputs_are_off_by_no_more_than_is_said(bench: Bench) -> None:
    feed = np.array([[1.000005, 1.0000049, 9.999999], [3.3333333, 0.1, 7e-20]], np.float32)
    bench.write(model(factor=1))
    outputs = bench.engine("8.2.1").infer({"x": feed})
    off = np.abs(outputs["y"].astype(np.float64) - feed) / feed
    assert 1e-7 < off.max() <= ROUNDING * 1.02  # beside it, float32's own rounding


def test_outputs_that_are_not_finite_stay_so(bench: Bench) -> None:
    engine = bench.engine("8.2.1")
    bench.fault(fake.NOT_FINITE)
    values = engine.infer({"x": ONES})["y"].ravel()
    assert np.isnan(values[0])
    assert values[1:].tolist() == [np.inf, -np.inf, 3, 3, 3]


def test_a_scalar_output_has_no_axes(tmp_path: Path) -> None:
    path = tmp_path / "outputs.json"
    path.write_text('[\n  { "name" : "loss"\n  , "dimensions" : ""\n  , "values" : [ 0.5 ]\n  }\n]\n')
    assert read_outputs(str(path))["loss"].shape == ()


def test_several_outputs_are_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "outputs.json"
    entry = '{{ "name" : "{}"\n  , "dimensions" : "1x2"\n  , "values" : [ {}, 2 ]\n  }}\n'
    path.write_text("[\n  {}, {}]\n".format(entry.format("a b", 1), entry.format("c", -4)))
    assert {name: array.tolist() for name, array in read_outputs(str(path)).items()} == {
        "a b": [[1, 2]],
        "c": [[-4, 2]],
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[\n]\n",
        '[ { "name" : "y", "dimensions" : "2x2", "values" : [ 1, 2, 3 ] } ]',
        '[ { "name" : "y", "dimensions" : "2", "values" : [ 1, two ] } ]',
        '[ { "name" : "y", "dimensions" : "1", "values" : [ 1 ] }, { "name" : "z", "values" : [ 1 ] } ]',
    ],
)
def test_outputs_of_another_form_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "outputs.json"
    path.write_text(text)
    with pytest.raises(DeployAttnError, match="trtexec wrote"):
        read_outputs(str(path))


@pytest.mark.parametrize(("release", "taken"), [("8.6.1", "i"), ("10.3.0", "q")])
def test_int64_inputs_are_narrowed_where_tensorrt_has_none(bench: Bench, release: str, taken: str) -> None:
    bench.write(model(type=taken))
    engine = bench.engine(release)
    feed = np.array([[1, -2, 3], [4, 5, 6]], np.int64)
    assert engine.infer({"x": feed})["y"].tolist() == (feed * 3).tolist()
    if taken == "i":
        with pytest.raises(BadRequest, match="beyond int32"):
            engine.infer({"x": feed + 2**40})


def test_shapes_go_with_inputs_of_an_open_shape_only(bench: Bench) -> None:
    profile = {"x": [[1, 3], [2, 3], [4, 3]]}
    bench.engine("8.2.1", profile=profile).infer({"x": ONES})
    assert "--shapes=x:2x3" in bench.calls()[-1]
    bench.engine("8.2.1").infer({"x": ONES})
    assert not any(flag.startswith("--shapes") for flag in bench.calls()[-1])


@pytest.mark.parametrize("fault", [fake.GARBAGE, fake.NO_FILES, fake.CRASHED])
def test_an_inference_without_an_answer_is_an_error(bench: Bench, fault: str) -> None:
    engine = bench.engine("8.2.1")
    bench.fault(fault)
    with pytest.raises(DeployAttnError, match="trtexec"):
        engine.infer({"x": ONES})
    with pytest.raises(DeployAttnError, match="trtexec"):
        engine.time({"x": ONES}, QUICK)


def test_an_engine_of_another_version_is_an_error_with_trtexecs_words(bench: Bench) -> None:
    bench.build("8.2.1")
    with pytest.raises(DeployAttnError, match="not compatible with this version"):
        TrtexecEngine(bench.tool("8.5.3"), str(bench.folder / "engine")).infer({"x": ONES})


def test_an_input_that_trtexec_cannot_name_is_refused(bench: Bench) -> None:
    with pytest.raises(BadRequest, match="x:0"):
        bench.engine("8.2.1").infer({"x:0": ONES})


@EACH_RELEASE
def test_times_are_those_after_the_warm_up(bench: Bench, release: str) -> None:
    timing = bench.engine(release).time({"x": ONES}, Options(duration=1.2))
    assert {"--duration=2", "--exposeDMA"} <= set(bench.calls()[-1])
    compute, latency = summary(timing.compute), summary(timing.end_to_end)
    assert (compute["n"], compute["loop"]) == (100, 1)
    assert (compute["min_ms"], compute["max_ms"]) == (2.5, 2.59)
    assert abs(compute["median_ms"] - 2.545) < 1e-9
    assert abs(latency["median_ms"] - compute["median_ms"] - 1.5) < 1e-9
    assert abs(compute["wall_seconds"] - 1.98409) < 1e-4  # from the first copy in to the last copy out
    assert timing.cuda_graph
    assert timing.compute.warm_up.settled is None
    assert json.loads(json.dumps(timing.as_dict(), allow_nan=False))["cuda_graph_error"] is None


@pytest.mark.parametrize("release", ["8.2.1", "11.1.0"])
def test_a_graph_that_trtexec_could_not_capture_is_told_with_its_words(bench: Bench, release: str) -> None:
    engine = bench.engine(release)
    bench.fault(fake.NO_GRAPH)
    timing = engine.time({"x": ONES}, QUICK)
    assert not timing.cuda_graph
    assert "not permitted under CUDA graph capture" in timing.cuda_graph_error
    assert any("without a CUDA graph" in note for note in timing.notes())


def test_times_of_the_warm_up_alone_are_an_error(bench: Bench) -> None:
    engine = bench.engine("8.2.1")
    bench.fault(fake.TOO_SHORT)
    with pytest.raises(DeployAttnError, match="beyond its warm-up"):
        engine.time({"x": ONES}, QUICK)


def test_a_long_list_of_times_is_read_piece_by_piece(tmp_path: Path) -> None:
    path, row = tmp_path / "times.json", '"startH2dMs" : {0}, "endD2hMs" : {0}, "computeMs" : {1}, "latencyMs" : 9e-1'
    rows = ['{{ {}, "startComputeMs" : {} }}'.format(row.format(200 + i, i % 7), 200 + i) for i in range(20000)]
    path.write_text("[\n  " + "\n, ".join(rows) + "\n]\n")
    compute, latency = read_times(str(path), 200)
    assert np.array_equal(compute.milliseconds, np.arange(20000) % 7)
    assert set(latency.milliseconds) == {0.9}
    assert compute.wall_seconds == pytest.approx(19.999)


def test_times_of_short_inferences_say_that_each_was_timed_alone(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    row = '{"startH2dMs": 300, "startComputeMs": 300, "endD2hMs": 301, "computeMs": 0.05, "latencyMs": 0.5}'
    path.write_text("[{}]".format(",".join([row] * 30)))
    compute, latency = read_times(str(path), 200)
    assert len(notes(compute)) == 1
    assert "timed alone" in notes(compute)[0]
    assert notes(latency) == []


def test_log_lines_come_while_trtexec_runs(bench: Bench) -> None:
    bench.fault(fake.SLOW)
    tool, seen = bench.tool("8.2.1"), threading.Event()

    def on_line(line: str) -> None:
        seen.set()
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        trtexec_build.build(tool, str(bench.folder), {}, on_line)
    assert seen.is_set()
    assert running_in(str(bench.folder)) == []


@pytest.mark.real_engine
def test_an_onnx_file_is_built_and_computed(bench: Bench) -> None:
    bench.write(scaled_relu(2.0, (2, 3)))
    outcome = bench.build("8.5.3", precision="fp16", plan={"act": "fp32", "scale": "fp16"})
    assert [(layer["name"], layer["outputs"]) for layer in outcome["layers"]] == [
        ("act", ["float"]),
        ("scale", ["half"]),
    ]
    feed = np.array([[-1, 0.5, 2], [3, -4, 1e6]], np.float32)
    outputs = TrtexecEngine(bench.tool("8.5.3"), str(bench.folder / "engine")).infer({"x": feed})
    assert outputs["y"].tolist() == [[0, 1, 4], [6, 0, 2e6]]
