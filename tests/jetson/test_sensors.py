"""Temperature, power and throttling in the layouts of each board, and where they are damaged, closed or absent."""

import os
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import pytest

from deploy_attn.jetson.sensors import Sensors, total_of
from tests.jetson import boards

NANO_CHIP = "/sys/bus/i2c/devices/6-0040/iio:device0"
ORIN_CHIP = "/sys/bus/i2c/devices/1-0040/hwmon/hwmon0"
SUM = "sum of "

TOTALS: Dict[str, Tuple[float, str]] = {
    "nano": (2.203, "rail POM_5V_IN"),
    "tx2": (4.131, "rail VDD_IN"),
    "xavier-nx": (4.0, "rail VDD_IN"),
    "agx-xavier": (0.36 + 0.216 + 0.864 + 0.0 + 0.144 + 1.884, SUM + "GPU, CPU, SOC, CV, VDDRQ, SYS5V"),
    "orin-nano": (4.52, "rail VDD_IN"),
    "agx-orin": (3.0 + 0.8 + 4.0 + 0.6, SUM + "VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0, VDDQ_VDD2_1V8AO"),
    "thor": (28.0, "rail VIN"),
}


@pytest.mark.parametrize("kind", sorted(TOTALS))
def test_the_power_of_the_whole_board_is_its_input_rail_or_the_sum(kind: str, tmp_path: Path) -> None:
    sensors = Sensors(boards.write(tmp_path, kind))
    power = sensors.total_power()
    assert power is not None
    assert power[0] == pytest.approx(TOTALS[kind][0], abs=1e-9)
    assert power[1] == TOTALS[kind][1]
    assert sensors.why_no_power() is None


def test_power_is_that_of_the_old_layout_in_milliwatts_or_voltage_times_current(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "nano")
    assert Sensors(root).rails() == {"POM_5V_IN": 2.203, "POM_5V_GPU": 0.04, "POM_5V_CPU": 0.493}
    boards.put(root, NANO_CHIP + "/in_power0_input", None)
    assert Sensors(root).rails()["POM_5V_IN"] == pytest.approx(5.088 * 0.433)


def test_rails_are_labels_with_a_current_and_neither_unconnected_nor_a_sum(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "agx-orin")
    boards.put(root, ORIN_CHIP + "/curr7_input", "900\n")  # the sum of the shunts has a label too
    assert list(Sensors(root).rails()) == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]
    boards.put(root, ORIN_CHIP + "/in2_enable", "0\n")
    boards.put(root, ORIN_CHIP + "/curr3_input", None)
    boards.put(root, ORIN_CHIP + "/in1_label", "VDD_SYNC\n")
    assert list(Sensors(root).rails()) == ["VDD_SYNC", "VDDQ_VDD2_1V8AO"]


def test_two_monitors_with_one_label_both_count(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "agx-xavier")
    boards.put(root, "/sys/bus/i2c/devices/1-0041/hwmon/hwmon1/in2_label", "GPU\n")
    rails = Sensors(root).rails()
    assert (rails["GPU"], rails["GPU (1-0041)"]) == (0.36, 0.144)


def test_a_negative_rail_is_a_calibration_and_stays(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "thor")
    boards.put(root, "/sys/bus/i2c/devices/2-0040/hwmon/hwmon0/curr1_input", "-78\n")
    assert Sensors(root).rails()["VDD_GPU"] == pytest.approx(-0.39)


def test_a_board_without_a_monitor_has_no_power_and_says_so(tmp_path: Path) -> None:
    sensors = Sensors(str(tmp_path))
    assert sensors.total_power() is None
    assert sensors.rails() == {}
    assert "no power monitor (INA3221)" in str(sensors.why_no_power())


@pytest.mark.parametrize("text", [None, "", "garbage", "12.5", "9" * 30])
def test_a_total_rail_that_fails_is_no_power_and_never_the_sum_of_the_others(
    text: Optional[str], tmp_path: Path
) -> None:
    root = boards.write(tmp_path, "orin-nano")
    sensors = Sensors(root)
    assert sensors.total_power() is not None
    boards.put(root, ORIN_CHIP + "/curr1_input", text)
    assert sensors.total_power() is None
    assert str(sensors.why_no_power()).startswith("rail VDD_IN: ")
    assert set(sensors.rails()) == {"VDD_CPU_GPU_CV", "VDD_SOC"}
    boards.put(root, ORIN_CHIP + "/curr1_input", "904\n")
    assert sensors.total_power() == (4.52, "rail VDD_IN")


def test_a_sum_that_misses_a_rail_is_none(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "agx-xavier")
    sensors = Sensors(root)
    boards.put(root, "/sys/bus/i2c/devices/1-0041/hwmon/hwmon1/curr3_input", "")
    assert sensors.total_power() is None
    assert "rail SYS5V" in str(sensors.why_no_power())


TEMPERATURES: Dict[str, Dict[str, float]] = {
    "nano": {"AO": 46.0, "CPU": 40.5, "GPU": 41.0, "PLL": 39.0, "thermal-fan-est": 41.0},
    "tx2": {"BCPU": 35.0, "Tboard_tegra": 32.0},
    "agx-orin": {"cpu": 49.812, "gpu": 47.625, "soc0": 48.0, "tj": 49.812},
    "thor": {"cpu": 53.7, "tj": 55.1, "soc012": 55.1, "soc345": 53.7},
}


@pytest.mark.parametrize("kind", sorted(TEMPERATURES))
def test_temperatures_are_those_of_zones_that_measure(kind: str, tmp_path: Path) -> None:
    assert Sensors(boards.write(tmp_path, kind)).temperatures() == TEMPERATURES[kind]


@pytest.mark.parametrize("text", [None, "", "hot", "-256000", "150000", "4.1e4"])
def test_a_zone_without_a_plausible_temperature_is_left_out(text: Optional[str], tmp_path: Path) -> None:
    root = boards.write(tmp_path, "nano")
    boards.put(root, "/sys/class/thermal/thermal_zone2/temp", text)
    assert "GPU" not in Sensors(root).temperatures()
    assert len(Sensors(root).temperatures()) == 4


def test_a_cold_zone_is_a_temperature(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "nano")
    boards.put(root, "/sys/class/thermal/thermal_zone2/temp", "-5500\n")
    assert Sensors(root).temperatures()["GPU"] == -5.5


def test_zones_of_one_name_are_numbered_the_same_whether_they_measure_or_not(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "nano")
    boards.put(root, "/sys/class/thermal/thermal_zone1/type", "GPU-therm\n")
    assert Sensors(root).temperatures()["GPU-2"] == 41.0
    boards.put(root, "/sys/class/thermal/thermal_zone1/temp", "")
    assert Sensors(root).temperatures()["GPU-2"] == 41.0
    assert set(Sensors(root).limits()) >= {"GPU", "GPU-2"}


def test_the_limit_of_a_zone_is_its_lowest_trip_that_slows_down(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "agx-orin")
    assert Sensors(root).limits()["gpu"] == 97.0
    boards.put(root, "/sys/class/thermal/thermal_zone1/trip_point_1_temp", "-274000\n")
    assert Sensors(root).limits()["gpu"] == 102.5
    boards.put(root, "/sys/class/thermal/thermal_zone1/trip_point_2_type", "active\n")
    assert "gpu" not in Sensors(root).limits()


@pytest.mark.parametrize(
    ("kind", "counters"),
    [
        ("nano", {}),
        ("tx2", {"bcpu-throttle-alert": 4}),
        ("agx-orin", {"oc1": 10, "oc2": 20, "oc3": 30}),
        ("thor", {"oc1": 10, "oc2": 20, "oc3": 30, "gpu-throttle-alert": 7}),
    ],
)
def test_throttle_counters_are_alarms_and_thermal_trips(kind: str, counters: Dict[str, int], tmp_path: Path) -> None:
    assert Sensors(boards.write(tmp_path, kind)).throttle_counters() == counters


def test_counters_of_another_chip_are_no_throttling(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "agx-orin")
    boards.put(root, "/sys/class/hwmon/hwmon2/name", "pwm_tach\n")
    assert Sensors(root).throttle_counters() == {}


def test_cooling_states_are_the_steps_by_kind_the_highest_of_each(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "orin-nano")
    boards.put(root, "/sys/class/thermal/cooling_device1/cur_state", "3\n")
    for number, state in ((10, "2"), (11, "1"), (12, "x")):
        boards.put(root, "/sys/class/thermal/cooling_device{}/type".format(number), "cpufreq\n")
        boards.put(root, "/sys/class/thermal/cooling_device{}/cur_state".format(number), state)
    states = Sensors(root).cooling_states()
    assert states == {
        "cpu-throttle-alert": 0,
        "gpu-throttle-alert": 3,
        "pwm-fan": 0,
        "devfreq-17000000.gpu": 0,
        "cpufreq": 2,
    }


def test_a_reading_has_all_of_a_moment(tmp_path: Path) -> None:
    reading = Sensors(boards.write(tmp_path, "agx-orin")).read()
    assert reading.gpu_clock_hz == 306000000
    assert reading.as_dict() == {
        "temperatures": TEMPERATURES["agx-orin"],
        "throttle_counters": {"oc1": 10, "oc2": 20, "oc3": 30},
        "cooling_states": {"cpu-throttle-alert": 0, "pwm-fan": 0},
        "gpu_clock_hz": 306000000,
    }


@pytest.mark.parametrize("kind", ["nano", "agx-orin", "thor"])
def test_no_damage_to_a_sensor_makes_it_fail_or_invents_a_value(kind: str, tmp_path: Path) -> None:
    root = boards.write(tmp_path, kind)
    whole = Sensors(root)
    reading, rails, total = whole.read(), whole.rails(), whole.total_power()
    sensors = [path for path in boards._files(boards.KINDS[kind]) if path.startswith("/sys/")]
    values = [path for path in sensors if not path.endswith(("label", "name", "type")) and "rail_name" not in path]
    for path in values:
        text = boards._files(boards.KINDS[kind])[path]
        for damage in (None, "", "garbage", "\ufffd\x00\x01", "1e5"):
            boards.put(root, path, damage)
            found = Sensors(root)
            assert found.temperatures().items() <= reading.temperatures.items(), (path, damage)
            assert found.throttle_counters().items() <= reading.throttle_counters.items()
            assert found.cooling_states().items() <= reading.cooling_states.items()
            assert found.gpu_clock_hz() in (None, reading.gpu_clock_hz)
            # Voltage times current, where JetPack 4's own power is gone, is the same but for its rounding.
            assert all(watts == pytest.approx(rails[label], abs=1e-3) for label, watts in found.rails().items())
            assert found.total_power() is None or found.limits() is not None
        boards.put(root, path, text)
    assert (whole.read(), whole.total_power()) == (reading, total)


def test_closed_files_are_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = boards.write(tmp_path, "nano")
    opened = os.open

    def closed(path: Any, *rest: Any, **more: Any) -> int:
        if "in_power" in str(path) or str(path).endswith("/temp"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", closed)
    sensors = Sensors(root)
    assert sensors.total_power() is None
    assert sensors.why_no_power() == "rail POM_5V_IN: {}/in_power0_input may only be read by root".format(NANO_CHIP)
    assert sensors.temperatures() == {}
    assert "/sys/class/thermal/thermal_zone0/temp may only be read by root." in sensors.unread


def test_what_is_unread_does_not_grow_with_every_sample(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "nano")
    sensors = Sensors(root)
    for number in range(100):
        boards.put(root, NANO_CHIP + "/in_power0_input", "garbage{}".format(number))
        sensors.total_power()
    assert 1 < len(sensors.unread) <= 20


@pytest.mark.parametrize(
    ("rails", "power"),
    [
        ({"A": 1.0, "B": 2.0}, (3.0, "sum of A, B")),
        ({"A": 1.0, "VDD_IN": 2.0}, (2.0, "rail VDD_IN")),
        ({"VIN_SYS_5V0": 4.0, "VIN": 9.0}, (9.0, "rail VIN")),
        ({}, None),
    ],
)
def test_a_total_is_the_input_rail_or_the_sum(rails: Dict[str, float], power: Any) -> None:
    assert total_of(rails) == power
