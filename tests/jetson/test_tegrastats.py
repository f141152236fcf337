"""The lines of tegrastats as each board prints them, and a program that stands for it."""

import os
import stat
import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import pytest

from deploy_attn.jetson import tegrastats
from deploy_attn.jetson.power import PowerSampler, Window
from deploy_attn.jetson.sensors import Sensors, total_of
from deploy_attn.jetson.tegrastats import Tegrastats, parse, power_source
from tests.jetson import boards

RAILS: Dict[str, Dict[str, float]] = {
    "nano": {"POM_5V_IN": 0.9, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.123},
    "nano-iram": {"POM_5V_IN": 4.52, "POM_5V_GPU": 0.0, "POM_5V_CPU": 1.078},
    "tx2": {"VDD_IN": 2.003, "VDD_CPU": 0.32, "VDD_GPU": 0.4, "VDD_SOC": 0.4, "VDD_WIFI": 0.0, "VDD_DDR": 0.24},
    "agx-xavier": {"GPU": 0.0, "CPU": 0.216, "SOC": 0.864, "CV": 0.0, "VDDRQ": 0.144, "SYS5V": 1.889},
    "agx-orin": {"VDD_GPU_SOC": 5.139, "VDD_CPU_CV": 3.268, "VIN_SYS_5V0": 5.5},
    "thor": {"VDD_GPU": -0.392, "VDD_CPU_SOC_MSS": 3.924, "VIN_SYS_5V0": 5.15, "VIN": 28.906},
}
ZONES: Dict[str, Dict[str, float]] = {
    "nano": {"PLL": 39.0, "CPU": 40.5, "GPU": 41.0, "AO": 46.0, "thermal": 41.0},
    "nano-iram": {"PLL": 57.0, "CPU": 60.5, "GPU": 59.0, "AO": 65.0, "thermal": 59.75},
    "tx2": {"BCPU": 35.0, "MCPU": 35.0, "PLL": 35.0, "Tboard": 32.0, "Tdiode": 33.25, "thermal": 35.3},
    "agx-xavier": {
        "AO": 32.5,
        "GPU": 32.0,
        "Tboard": 33.0,
        "Tdiode": 34.5,
        "AUX": 32.0,
        "CPU": 33.5,
        "thermal": 32.9,
    },
    "agx-orin": {"cpu": 52.968, "gpu": 47.625, "tj": 52.968},
    "thor": {"cpu": 49.75, "tj": 51.218, "gpu": 51.218},
}
GPU: Dict[str, Tuple[Any, Any]] = {
    "nano": (0, None),
    "nano-iram": (0, 76000000),
    "tx2": (0, 114000000),
    "agx-xavier": (0, 318000000),
    "agx-orin": (12, 1305000000),
    "thor": (None, 1575000000),
}
RAM = {
    "nano": (613, 3964),
    "nano-iram": (1180, 3965),
    "tx2": (4722, 7844),
    "agx-xavier": (2455, 15692),
    "agx-orin": (20642, 62817),
    "thor": (3429, 125749),
}


@pytest.mark.parametrize("kind", sorted(boards.TEGRASTATS))
def test_a_line_is_the_same_numbers_in_every_dialect(kind: str) -> None:
    line = parse(boards.TEGRASTATS[kind])
    assert line.rails == RAILS[kind]
    assert line.temperatures == ZONES[kind]
    assert (line.gpu_percent, line.gpu_clock_hz) == GPU[kind]
    assert (line.ram_used_bytes, line.ram_bytes) == tuple(mib << 20 for mib in RAM[kind])


@pytest.mark.parametrize(
    ("kind", "power"),
    [
        ("nano", (0.9, "rail POM_5V_IN")),
        ("tx2", (2.003, "rail VDD_IN")),
        ("agx-xavier", (3.113, "sum of GPU, CPU, SOC, CV, VDDRQ, SYS5V")),
        ("agx-orin", (13.907, "sum of VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0")),
        ("thor", (28.906, "rail VIN")),
    ],
)
def test_the_power_of_a_line_is_its_input_rail_or_the_sum(kind: str, power: Tuple[float, str]) -> None:
    found = total_of(parse(boards.TEGRASTATS[kind]).rails)
    assert found is not None
    assert found[0] == pytest.approx(power[0])
    assert found[1] == power[1]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "garbage",
        "tegrastats: error while loading shared libraries",
        "SWAP 0/1982MB IRAM 0/252kB(lfb 252kB) APE 150 MTS fg 0% bg 0%",
        "VDD_IN 5/",
        "VDD_IN x5/5",
        "VDD_IN 5/5V",
        "5 6/7",
        "GPU@C GPU@x4C GPU@41F",
        "PMIC@41C CPU@-256C GPU@999C",
        "GR3D_FREQ off GR3D_FREQ",
        "RAM 1/2GB RAM x/2MB",
        "\x00\ufffd\n\r",
        "9" * 100 + "/" + "9" * 100,
    ],
)
def test_what_is_none_of_it_is_left_out(line: str) -> None:
    assert parse(line) == parse("")
    assert parse(line).rails == {}


def test_a_line_that_was_cut_gives_what_is_whole() -> None:
    whole = boards.TEGRASTATS["agx-orin"]
    for length in range(len(whole)):
        line = parse(whole[:length])
        assert set(line.rails) <= set(RAILS["agx-orin"])
        assert set(line.temperatures) <= set(ZONES["agx-orin"])
        assert all(watts == RAILS["agx-orin"][name] for name, watts in line.rails.items())


Program = Callable[[str], str]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    def made(script: str) -> str:
        path = str(tmp_path / "tegrastats")
        with open(path, "w") as stream:
            stream.write('#!/bin/sh\necho "$@" > {}/arguments\n{}\n'.format(tmp_path, script))
        os.chmod(path, stat.S_IRWXU)
        return path

    return made


def waited(ask: Callable[[], Any]) -> Any:
    """What it answers as soon as it has an answer."""
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        answer = ask()
        if answer is not None:
            return answer
        time.sleep(0.005)
    raise AssertionError("no answer in 10 s")


def test_each_line_of_the_program_is_one_sample(program: Program, tmp_path: Path) -> None:
    line = boards.TEGRASTATS["nano"]
    path = program(
        "echo '{}'; while [ ! -e {}/go ]; do sleep 0.01; done; echo '{}'; sleep 60".format(
            line, tmp_path, line.replace("POM_5V_IN 900/943", "POM_5V_IN 1500/1")
        )
    )
    with Tegrastats(8.0, path) as stats:
        assert waited(stats.total_power) == (0.9, "rail POM_5V_IN by tegrastats")
        assert stats.total_power() is None
        assert stats.temperatures() == ZONES["nano"]
        assert stats.why_no_power() is None
        (tmp_path / "go").write_text("")
        assert waited(stats.total_power) == (1.5, "rail POM_5V_IN by tegrastats")
    assert (tmp_path / "arguments").read_text() == "--interval 125\n"
    assert stats._process is not None
    assert stats._process.returncode == -9


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo RAM 1/2MB; sleep 60", "prints no power rail"),
        ("exit 1", "has not printed a line and ended"),
        ("head -c 100000 /dev/urandom; sleep 60", "prints no power rail"),
    ],
)
def test_a_program_without_power_says_so(script: str, words: str, program: Program) -> None:
    with Tegrastats(10.0, program(script)) as stats:
        waited(lambda: True if words in str(stats.why_no_power()) else None)
        assert stats.total_power() is None


def test_a_program_that_is_absent_or_does_not_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tegrastats(10.0, str(tmp_path / "nowhere")) as stats:
        assert stats.total_power() is None
    assert "cannot be started" in str(stats.why_no_power())
    monkeypatch.setattr(tegrastats, "find_program", lambda name: None)
    with Tegrastats(10.0) as stats:
        assert stats.total_power() is None
    assert stats.why_no_power() == "there is no tegrastats"


def test_the_sensors_are_the_source_of_power_where_they_tell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tegrastats, "find_program", lambda name: pytest.fail("a program was looked for"))
    sensors = Sensors(boards.write(tmp_path, "nano"))
    with power_source(sensors, 10.0) as found:
        assert found == (sensors, None)


def test_tegrastats_is_the_source_of_power_where_sysfs_is_closed(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program("while echo '{}'; do sleep 0.04; done".format(boards.TEGRASTATS["nano"]))
    monkeypatch.setattr(tegrastats, "find_program", lambda name: path)
    with power_source(Sensors(str(tmp_path / "empty")), 20.0) as (source, reason):
        assert reason is None
        with PowerSampler(source, 20.0) as sampler:
            start = time.monotonic()
            time.sleep(2.0)
            window = Window(start, time.monotonic(), 10)
    found = sampler.energy(window)
    assert found.mean_watts == pytest.approx(0.9)
    assert found.source == "rail POM_5V_IN by tegrastats"
    assert found.samples >= 20


@pytest.mark.parametrize(
    ("script", "words"), [(None, "there is no tegrastats"), ("exit 1", "has not printed a line and ended")]
)
def test_without_either_there_is_no_power_and_both_reasons(
    script: Any, words: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tegrastats, "find_program", lambda name: script and program(script))
    sensors = Sensors(str(tmp_path / "empty"))
    start = time.monotonic()
    with power_source(sensors, 10.0) as (source, reason):
        assert source is sensors
    assert str(reason).startswith("there is no power monitor (INA3221)")
    assert str(reason).endswith(words)
    assert time.monotonic() - start < 2.5
