"""run.py over the recorded tree of a board: power, temperatures, throttling, and clocks that are pinned and undone."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import pytest

from tests.jetson import boards, capsules, fake_trtexec, stub
from tests.jetson.builds import saved
from tests.jetson.fake_tensorrt import builder
from tests.jetson.runs import Bench, Ended, children_that_build, content_of, has_ended, left_over, wait_for

REAL = pytest.mark.real_engine
ONE = ("--precision", "fp32", "--duration", "0.05")
QUICK = ("--quick",) + ONE
PINNED = ("--pin-clocks",) + QUICK
LONG = ("--pin-clocks", "--precision", "fp32", "--duration", "60")
NANO_RAIL = "/sys/bus/i2c/devices/6-0040/iio:device0/in_power0_input"
NANO_CLOCK = "/sys/class/devfreq/57000000.gpu/min_freq"
EVERY_SIGNAL = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path) as started:
        yield started


class Kind(NamedTuple):
    """A recorded board, the TensorRT of it, and what its power is."""

    name: str
    capability: str
    tensorrt: str
    watts: float
    source: str
    alarms: Dict[str, int]


OC = {"oc1": 10, "oc2": 20, "oc3": 30}
KINDS = [
    Kind("nano", "5.3", "8.2", 2.203, "rail POM_5V_IN", {}),
    Kind("tx2", "6.2", "8.2", 4.131, "rail VDD_IN", {"bcpu-throttle-alert": 4}),
    Kind("xavier-nx", "7.2", "8.5", 4.0, "rail VDD_IN", {}),
    Kind("agx-xavier", "7.2", "8.5", 3.468, "sum of GPU, CPU, SOC, CV, VDDRQ, SYS5V", {}),
    Kind("orin-nano", "8.7", "10", 4.52, "rail VDD_IN", OC),
    Kind("agx-orin", "8.7", "8.5", 8.4, "sum of VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0, VDDQ_VDD2_1V8AO", OC),
    Kind("thor", "11.0", "10", 28.0, "rail VIN", dict(OC, **{"gpu-throttle-alert": 7})),
]


class Measured(NamedTuple):
    """A board's run, and its tree before and after it."""

    ended: Ended
    before: Dict[str, bytes]
    after: Dict[str, bytes]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Measured]:
    """Each board's, all at once: most of a run is waiting for samples of power."""
    found = {}
    with contextlib.ExitStack() as held:
        running = []
        for kind in KINDS:
            bench = held.enter_context(Bench(tmp_path_factory.mktemp(kind.name)))
            before = content_of(bench.board(kind.name))
            bench.jetson_clocks()
            bench.capsule(facts={"device.compute_capability": kind.capability})
            bench.tensorrt(kind.tensorrt)
            bench.environment[stub.COMPUTE_CAPABILITY] = kind.capability
            running.append((kind, bench, before, bench.start(*ONE)))
        for kind, bench, before, process in running:
            found[kind.name] = Measured(bench.ended(process), before, content_of(bench.root))
            assert not (bench.folder / "bin" / "calls").exists(), "it changed clocks unasked"
    return found


@REAL
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))
def test_a_verdict_of_each_board_has_its_power_and_state_and_changes_nothing(
    measured: Dict[str, Measured], kind: Kind
) -> None:
    ended, before, after = measured[kind.name]
    assert ended.code == 0, ended.stderr
    assert after == before
    verdict = ended.verdict
    assert verdict is not None
    power = verdict["power"]["fp32"]
    assert (power["refused"], power["source"]) == (None, kind.source)
    assert power["mean_watts"] == pytest.approx(kind.watts)
    assert power["idle_watts"] == pytest.approx(kind.watts)
    assert power["samples"] >= 20
    assert 5 <= power["hz"] <= 20.5
    assert 0 < power["joules_per_inference"] < kind.watts
    ran = power["mean_watts"] * power["seconds"] / power["joules_per_inference"]
    assert round(ran) % 20 == 0, "20 are queued at once, and each counts"
    assert "power in fp32: {:.3g} mJ per inference".format(1e3 * power["joules_per_inference"]) in ended.stdout
    assert "({} samples at ".format(power["samples"]) in ended.stdout
    recorded = boards.KINDS[kind.name]
    assert verdict["board"]["module"] == recorded.model
    assert verdict["board"]["power_mode"]["id"] == recorded.mode
    assert verdict["throttling"]["before"] == verdict["throttling"]["after"] == kind.alarms
    assert set(verdict["throttling"]["cooling_after"].values()) == {0}
    assert verdict["temperatures"]["before"] == verdict["temperatures"]["after"]
    assert len(verdict["temperatures"]["after"]) >= 2


@REAL
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({NANO_RAIL: "much\n"}, "rail POM_5V_IN: {} holds no number ('much')".format(NANO_RAIL)),
        ({NANO_RAIL: ""}, "rail POM_5V_IN: {} is empty".format(NANO_RAIL)),
        ({"/sys/bus/i2c/devices/6-0040/name": None}, "there is no power monitor (INA3221)"),
    ],
)
def test_power_that_cannot_be_read_is_said_and_the_verdict_holds(
    bench: Bench, files: Dict[str, Optional[str]], said: str
) -> None:
    bench.board("nano", **files)
    bench.capsule()
    ended = bench.run("--engine", "onnxruntime", *ONE)
    assert ended.code == 0, ended.stderr
    assert ended.verdict is not None
    power = ended.verdict["power"]["fp32"]
    assert list(power) == ["refused"]
    assert power["refused"].startswith("Power could not be measured: " + said)
    assert power["refused"].endswith("and there is no tegrastats.")
    assert "power in fp32: " + power["refused"] in ended.stdout


@REAL
def test_power_that_vanishes_while_it_is_measured_is_said(bench: Bench) -> None:
    root = bench.board("nano")
    bench.capsule()
    process = bench.start("--engine", "onnxruntime", *ONE)
    wait_for(process, "power: ")
    os.unlink(root + NANO_RAIL)
    ended = bench.ended(process)
    assert ended.code == 0, ended.stderr
    assert ended.verdict is not None
    power = ended.verdict["power"]["fp32"]
    assert power["joules_per_inference"] is None
    assert "power samples in" in power["refused"]
    assert power["refused"].endswith("The reason: rail POM_5V_IN: there is no {}.".format(NANO_RAIL))


@REAL
def test_tegrastats_gives_the_power_where_the_monitor_is_closed(bench: Bench) -> None:
    bench.board("nano", **{"/sys/bus/i2c/devices/6-0040/name": None})
    bench.capsule()
    program = bench.folder / "bin" / "tegrastats"
    program.write_text(
        "#!/bin/sh\necho $$ > {}/tegrastats\nwhile echo '{}'; do /bin/sleep 0.04; done\n".format(
            bench.folder, boards.TEGRASTATS["nano"]
        )
    )
    program.chmod(0o700)
    ended = bench.run("--engine", "onnxruntime", *ONE)
    assert ended.verdict is not None, ended.stderr
    assert ended.verdict["power"]["fp32"]["source"] == "rail POM_5V_IN by tegrastats"
    assert ended.verdict["power"]["fp32"]["mean_watts"] == pytest.approx(0.9)
    assert has_ended((bench.folder / "tegrastats").read_text().strip())


@REAL
def test_trtexec_gives_no_power_and_says_why(bench: Bench) -> None:
    bench.board("nano")
    bench.capsule()
    fake_trtexec.install(str(bench.folder / "bin"), "8.2.1")
    ended = bench.run(*ONE)
    assert ended.code == 0, ended.stderr
    assert ended.verdict is not None
    (reason,) = ended.verdict["power"]["fp32"].values()
    assert reason.startswith("Not measured: trtexec does not say when its inferences begin and end;")


@REAL
def test_what_slowed_the_board_down_is_in_the_verdict(bench: Bench) -> None:
    root = bench.board("orin-nano")
    bench.capsule()
    process = bench.start("--engine", "onnxruntime", *QUICK)
    wait_for(process, "timing: ")
    boards.put(root, "/sys/class/hwmon/hwmon2/oc1_event_cnt", "13\n")
    boards.put(root, "/sys/class/thermal/cooling_device1/cur_state", "2\n")
    boards.put(root, "/sys/class/thermal/thermal_zone0/temp", "96500\n")
    verdict = bench.ended(process).verdict
    assert verdict is not None
    assert (verdict["throttling"]["before"]["oc1"], verdict["throttling"]["after"]["oc1"]) == (10, 13)
    assert verdict["throttling"]["cooling_after"]["gpu-throttle-alert"] == 2
    assert (verdict["temperatures"]["before"]["cpu"], verdict["temperatures"]["after"]["cpu"]) == (49.812, 96.5)
    said = " ".join(verdict["warnings"])
    assert "slowed itself down 3 times for under-voltage (oc1)" in said
    assert "gpu-throttle-alert at step 2" in said
    assert "cpu is at 96.5 C, and from 97.0 C on" in said


@REAL
@pytest.mark.parametrize("kind", ["nano", "agx-xavier", "orin-nano", "thor"])
def test_clocks_are_pinned_while_it_runs_and_then_as_they_were(bench: Bench, kind: str) -> None:
    root = bench.board(kind)
    bench.jetson_clocks()
    bench.capsule()
    before = content_of(root)
    ended = bench.run("--engine", "onnxruntime", *PINNED)
    assert ended.code == 0, ended.stderr
    assert ended.verdict is not None
    assert ended.verdict["board"]["clocks_pinned"] is True
    assert ended.verdict["problems"] == []
    assert not any("pinned" in warning for warning in ended.verdict["warnings"])
    assert "Clocks are pinned until the end of this run" in ended.stderr
    assert calls(bench) == ["--store", "", "--restore"]
    assert content_of(root) == before
    assert bench.temporary() == []


def calls(bench: Bench) -> List[str]:
    """The first word of each call of jetson_clocks."""
    lines = (bench.folder / "bin" / "calls").read_text().splitlines()
    return [line.partition(" ")[0] for line in lines]


def _wrong_reference(bench: Bench) -> Tuple[Any, ...]:
    bench.capsule(reference=lambda x: capsules.expected(x) + 1)
    return ("--engine", "onnxruntime", 1, "FAIL")


def _unknown_operator(bench: Bench) -> Tuple[Any, ...]:
    from onnx import helper

    bench.capsule(model=saved([helper.make_node("Det", ["x"], ["y"], "det")], (1, 4, 8, 8)))
    bench.tensorrt("8.2")
    return ("--engine", "tensorrt", 1, "refuses this graph")


def _killed_builder(bench: Bench) -> Tuple[Any, ...]:
    bench.capsule()
    bench.tensorrt("8.2", builder.KILLED)
    return ("--engine", "tensorrt", 1, "SIGKILL")


def _no_engine(bench: Bench) -> Tuple[Any, ...]:
    bench.capsule()
    return ("--engine", "trtexec", 2, "trtexec is neither at {}/usr/src".format(bench.root))


def _another_board(bench: Bench) -> Tuple[Any, ...]:
    bench.capsule(facts={"device.compute_capability": "8.7"})
    bench.tensorrt("8.2")
    return ("--engine", "tensorrt", 2, "compute capability 8.7; ")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(_wrong_reference, marks=REAL),
        _unknown_operator,
        _killed_builder,
        _no_engine,
        _another_board,
    ],
)
def test_clocks_are_as_they_were_after_a_run_that_fails(bench: Bench, case: Any) -> None:
    root = bench.board("nano")
    bench.jetson_clocks()
    before = content_of(root)
    option, engine, code, said = case(bench)
    ended = bench.run(option, engine, *PINNED)
    assert ended.code == code, ended.stderr
    assert said in ended.stderr
    assert calls(bench) == ["--store", "", "--restore"]
    assert content_of(root) == before
    assert left_over(bench.place) == bench.temporary() == []


@EVERY_SIGNAL
def test_a_signal_while_it_builds_restores_the_clocks(bench: Bench, number: int, code: int) -> None:
    root = bench.board("nano")
    bench.jetson_clocks()
    bench.capsule()
    bench.tensorrt("8.2", builder.SLOW)
    before = content_of(root)
    process = bench.start(*PINNED)
    children = children_that_build(process.pid)
    assert content_of(root) != before
    process.send_signal(number)
    ended = bench.ended(process)
    assert (ended.code, ended.verdict, ended.stdout) == (code, None, ""), ended.stderr
    assert "Traceback" not in ended.stderr
    assert content_of(root) == before
    assert all(has_ended(child) for child in children)
    assert left_over(bench.place) == bench.temporary() == []


@REAL
@EVERY_SIGNAL
@pytest.mark.parametrize("stage", ["timing: ", "power: "])
def test_a_signal_while_it_measures_restores_the_clocks(bench: Bench, stage: str, number: int, code: int) -> None:
    root = bench.board("nano")
    bench.jetson_clocks()
    bench.capsule()
    before = content_of(root)
    duration = "60" if stage == "timing: " else "0.05"
    process = bench.start("--engine", "onnxruntime", "--pin-clocks", "--precision", "fp32", "--duration", duration)
    wait_for(process, stage)
    time.sleep(0.2)
    process.send_signal(number)
    ended = bench.ended(process)
    assert (ended.code, ended.verdict, ended.stdout) == (code, None, ""), ended.stderr
    assert "Traceback" not in ended.stderr
    assert calls(bench) == ["--store", "", "--restore"]
    assert content_of(root) == before


@REAL
def test_a_second_signal_while_the_clocks_are_restored_changes_nothing(bench: Bench) -> None:
    root = bench.board("nano")
    bench.jetson_clocks(restore="touch $here/restoring; sleep 0.5")
    bench.capsule()
    before = content_of(root)
    process = bench.start("--engine", "onnxruntime", *LONG)
    wait_for(process, "timing: ")
    process.send_signal(signal.SIGINT)
    while not (bench.folder / "bin" / "restoring").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    ended = bench.ended(process)
    assert ended.code == 130, ended.stderr
    assert "Traceback" not in ended.stderr
    assert content_of(root) == before


@REAL
def test_clocks_that_were_not_restored_are_a_problem_of_the_verdict(bench: Bench) -> None:
    bench.board("nano")
    bench.jetson_clocks(restore="exit 3")
    bench.capsule()
    ended = bench.run("--engine", "onnxruntime", *PINNED)
    assert ended.code == 1
    assert ended.verdict is not None
    assert all(check["passed"] for check in ended.verdict["checks"])
    (problem,) = ended.verdict["problems"]
    assert problem.startswith("The clocks may still be pinned. jetson_clocks could not restore the clocks: exit code 3")
    (folder,) = bench.temporary()
    assert "`sudo jetson_clocks --restore {}/temporary/{}/clocks.conf`".format(bench.folder, folder) in problem
    assert "problem: " + problem in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("FAIL  2 of 2 checks hold")


@pytest.mark.parametrize(
    ("user", "steps", "said"),
    [
        ("1000", {}, "needs root: jetson_clocks writes to /sys. Run it again with sudo"),
        ("0", None, "there is no jetson_clocks here"),
        (
            "0",
            {"store": "echo 'Error: no /sys/x'; exit 0"},
            "could not store the clocks: exit code 0, it said",
        ),
        ("0", {"pin": "echo 'Error: no /sys/x'; exit 0"}, "could not pin the clocks: exit code 0, it said"),
        ("0", {"pin": "exit 0"}, "the GPU may still fall to 76 MHz"),
    ],
)
def test_clocks_that_cannot_be_pinned_end_the_run_before_it_begins(
    bench: Bench, user: str, steps: Optional[Dict[str, str]], said: str
) -> None:
    root = bench.board("nano")
    if steps is not None:
        bench.jetson_clocks(**steps)
    bench.capsule()
    bench.tensorrt("8.2")
    bench.environment[capsules.USER] = user
    before = content_of(root)
    ended = bench.run(*PINNED)
    assert (ended.code, ended.verdict, ended.stdout) == (2, None, "")
    assert "--pin-clocks was asked for" in ended.stderr
    assert said in ended.stderr
    assert "engine in" not in ended.stderr
    assert content_of(root) == before


def test_trtexec_is_looked_for_on_the_board_that_the_tree_stands_for(bench: Bench) -> None:
    root = bench.board("nano")
    bench.capsule(facts={"runtime.tensorrt": "11.0.0"})
    place = Path(root) / "usr" / "src" / "tensorrt" / "bin"
    place.mkdir(parents=True)
    fake_trtexec.install(str(place), "8.2.1")
    for engine in ((), ("--engine", "trtexec")):
        ended = bench.run(*(engine + QUICK))
        assert ended.code == 2
        assert "with TensorRT 11.0.0; here is 8.2.1" in ended.stderr
