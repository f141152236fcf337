"""Power over time with measured moments, and joules for one inference or the reason why there are none."""

import threading
import time
from pathlib import Path
from typing import Any, List, Optional, Tuple

import pytest

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.power import Energy, PowerSampler, Sample, Window, area, energy_per_inference, idle_power
from deploy_attn.jetson.sensors import Sensors
from tests.jetson import boards


class Source:
    """Sensors that give what they are told, one value after the other and the last for ever."""

    def __init__(self, *values: Any, **words: Any) -> None:
        self._values = list(values)
        self._reason = words.get("reason")
        self._seconds = words.get("seconds", 0.0)
        self.threads: List[int] = []

    def total_power(self) -> Optional[Tuple[float, str]]:
        self.threads.append(threading.get_ident())
        time.sleep(self._seconds)
        value = self._values.pop(0) if len(self._values) > 1 else self._values[0]
        if isinstance(value, Exception):
            raise value
        return None if value is None else (value, "rail VDD_IN")

    def why_no_power(self) -> Optional[str]:
        return self._reason


def every(seconds: float, watts: List[float]) -> List[Sample]:
    return [(100.0 + index * seconds, value) for index, value in enumerate(watts)]


@pytest.mark.parametrize(
    ("samples", "joules"),
    [
        ([], 0.0),
        ([(1.0, 5.0)], 0.0),
        ([(1.0, 5.0), (3.0, 5.0)], 10.0),
        ([(0.0, 0.0), (2.0, 4.0)], 4.0),
        ([(0.0, 2.0), (1.0, 4.0), (4.0, 0.0)], 9.0),
    ],
)
def test_energy_is_the_area_under_the_samples(samples: List[Sample], joules: float) -> None:
    assert area(samples) == pytest.approx(joules)


def test_energy_per_inference_is_mean_power_times_the_time_of_one() -> None:
    found = energy_per_inference(every(0.1, [4.0] * 101), Window(100.0, 110.0, 500))
    assert found.refused is None
    assert found.joules_per_inference == pytest.approx(4.0 * 10.0 / 500)
    assert (found.samples, found.seconds) == (101, 10.0)
    assert found.mean_watts == pytest.approx(4.0)
    assert found.hz == pytest.approx(10.0)
    assert (found.idle_watts, found.joules_per_inference_above_idle) == (None, None)


def test_the_mean_is_over_time_and_not_over_samples() -> None:
    crowded = [(index * 0.01, 10.0) for index in range(20)]
    rare = [(0.2 + index * 0.1, 2.0) for index in range(99)]
    found = energy_per_inference(crowded + rare, Window(0.0, 10.0, 1))
    assert found.mean_watts == pytest.approx((0.19 * 10 + 0.01 * 6 + 9.8 * 2) / 10.0)
    assert (found.least_watts, found.most_watts) == (2.0, 10.0)


def test_samples_outside_the_window_do_not_count() -> None:
    samples = every(0.1, [1.0] * 50 + [6.0] * 50 + [1.0] * 50)
    found = energy_per_inference(samples, Window(104.95, 109.95, 10))
    assert found.samples == 50
    assert found.mean_watts == pytest.approx(6.0)
    assert found.joules_per_inference == pytest.approx(3.0)


@pytest.mark.parametrize("count", [0, 1, 19, 20])
def test_less_than_twenty_samples_are_refused_with_the_reason(count: int) -> None:
    found = energy_per_inference(every(0.1, [5.0] * count), Window(100.0, 101.95, 10))
    assert found.samples == count
    if count == 20:
        assert found.refused is None
        assert found.joules_per_inference is not None
    else:
        assert found.joules_per_inference is None
        assert "{} power samples in 1.9 s, of 20 that it takes".format(count) in str(found.refused).replace(
            "2.0", "1.9"
        )
        assert "--duration" in str(found.refused)


def test_samples_that_leave_a_part_of_the_time_out_are_refused() -> None:
    found = energy_per_inference(every(0.05, [5.0] * 31), Window(100.0, 110.0, 10))
    assert found.refused == "No energy per inference: the power samples cover 15% of the measured 10.0 s."


@pytest.mark.parametrize("window", [Window(0.0, 10.0, 0), Window(10.0, 10.0, 5), Window(10.0, 0.0, 5)])
def test_a_window_without_inferences_or_time_is_refused(window: Window) -> None:
    found = energy_per_inference(every(0.1, [5.0] * 200), window)
    assert (found.joules_per_inference, found.refused) == (
        None,
        "No energy per inference: nothing ran in the measured time.",
    )


def test_the_idle_power_is_subtracted() -> None:
    idle = idle_power(every(0.1, [1.5] * 30))
    assert idle == pytest.approx(1.5)
    found = energy_per_inference(every(0.1, [4.0] * 101), Window(100.0, 110.0, 100), idle)
    assert found.joules_per_inference == pytest.approx(0.4)
    assert found.joules_per_inference_above_idle == pytest.approx(0.25)
    assert found.idle_watts == pytest.approx(1.5)
    assert found.note is None


def test_an_idle_power_above_the_load_is_no_energy_above_idle_and_says_so() -> None:
    found = energy_per_inference(every(0.1, [4.0] * 101), Window(100.0, 110.0, 100), 4.5)
    assert found.joules_per_inference == pytest.approx(0.4)
    assert found.joules_per_inference_above_idle is None
    assert "4.50 W idle and 4.00 W under load" in str(found.note)


@pytest.mark.parametrize("samples", [[], every(0.1, [1.0] * 19), [(5.0, 1.0)] * 30])
def test_an_idle_power_of_too_little_is_none(samples: List[Sample]) -> None:
    assert idle_power(samples) is None


@pytest.mark.parametrize("hz", [0.0, 4.9, 20.1, -5.0, float("nan"), float("inf")])
def test_a_rate_that_is_too_low_or_too_high_is_refused(hz: float) -> None:
    with pytest.raises(BadRequest, match="5 to 20 Hz"):
        PowerSampler(Source(1.0), hz)


def test_it_measures_in_a_thread_of_its_own_at_its_rate_with_the_time_of_each() -> None:
    source = Source(3.0)
    start = time.monotonic()
    with PowerSampler(source, 20.0) as sampler:
        time.sleep(0.7)
    end = time.monotonic()
    times = [sample[0] for sample in sampler.samples]
    assert 8 <= len(times) <= 16
    assert times == sorted(times)
    assert start <= times[0] <= times[-1] <= end
    assert {sample[1] for sample in sampler.samples} == {3.0}
    assert sampler.source == "rail VDD_IN"
    assert threading.get_ident() not in source.threads
    count = len(sampler.samples)
    time.sleep(0.12)
    assert len(sampler.samples) == count


def test_the_time_of_a_sample_is_the_middle_of_its_reading() -> None:
    ticks = iter([0.0, 1.0, 3.0] + [1000.0] * 1000)
    sampler = PowerSampler(Source(7.0), 10.0, clock=lambda: next(ticks))
    with sampler:
        while not sampler.samples:
            time.sleep(0.001)
    assert sampler.samples[0] == (2.0, 7.0)


def test_a_slow_monitor_gives_fewer_samples_and_is_not_asked_twice_at_once() -> None:
    with PowerSampler(Source(3.0, seconds=0.12), 20.0) as sampler:
        time.sleep(0.8)
    times = [sample[0] for sample in sampler.samples]
    assert 3 <= len(times) <= 7
    assert min(later - earlier for earlier, later in zip(times, times[1:])) > 0.1


def test_ticks_that_a_stall_missed_are_not_caught_up_with() -> None:
    source = Source(3.0, seconds=0.5)
    with PowerSampler(source, 20.0) as sampler:
        time.sleep(0.25)
        source._seconds = 0.0
        time.sleep(0.6)
    times = [sample[0] for sample in sampler.samples]
    assert len(times) >= 3
    assert len([moment for moment in times[1:] if moment < times[1] + 0.12]) <= 4


def test_what_is_no_power_is_no_sample() -> None:
    values = [None, float("nan"), float("inf"), 2.0, None]
    with PowerSampler(Source(*values, reason="rail VDD_IN: it is empty"), 20.0) as sampler:
        time.sleep(0.4)
    assert [sample[1] for sample in sampler.samples] == [2.0]
    found = sampler.energy(Window(sampler.samples[0][0] - 1.0, sampler.samples[0][0] + 1.0, 10))
    assert str(found.refused).endswith("The reason: rail VDD_IN: it is empty.")


def test_a_source_that_raises_is_a_reason_and_no_traceback(capfd: Any) -> None:
    with PowerSampler(Source(2.0, KeyError("rail")), 20.0) as sampler:
        time.sleep(0.3)
    assert len(sampler.samples) == 1
    assert sampler.failure == "reading the power failed (KeyError: 'rail')"
    assert capfd.readouterr().err == ""


def test_a_monitor_that_does_not_answer_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy_attn.jetson.power._STOP_SECONDS", 0.1)
    start = time.monotonic()
    with PowerSampler(Source(2.0, seconds=1.0), 20.0) as sampler:
        time.sleep(0.05)
    assert time.monotonic() - start < 0.8
    assert "did not answer" in str(sampler.failure)


def test_an_error_of_the_block_goes_on() -> None:
    with pytest.raises(ZeroDivisionError), PowerSampler(Source(2.0), 20.0):
        raise ZeroDivisionError


def test_a_recorded_board_is_measured_whole(tmp_path: Path) -> None:
    sensors = Sensors(boards.write(tmp_path, "nano"))
    with PowerSampler(sensors, 20.0) as sampler:
        start = time.monotonic()
        time.sleep(1.5)
        window = Window(start, time.monotonic(), 100)
    found = sampler.energy(window)
    assert found.refused is None
    assert found.mean_watts == pytest.approx(2.203)
    assert found.source == "rail POM_5V_IN"
    assert found.joules_per_inference == pytest.approx(2.203 * found.seconds / 100)
    words = found.as_dict()
    assert list(words) == list(Energy._fields)


def test_a_board_without_a_monitor_has_no_energy_and_says_why(tmp_path: Path) -> None:
    with PowerSampler(Sensors(str(tmp_path)), 20.0) as sampler:
        time.sleep(0.1)
    found = sampler.energy(Window(0.0, 1.0, 10))
    assert found.joules_per_inference is None
    assert "no power monitor (INA3221)" in str(found.refused)
