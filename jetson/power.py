"""Power over time, and the energy of one inference.

Reading a monitor over I2C takes about a millisecond of a CPU, so it happens 5 to
20 times a second in a thread of its own, and what counts is the time at which a
value was really read. Energy is the area under the samples.
"""

import math
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .errors import BadRequest
from .sensors import Power

LEAST_SAMPLES = 20
LOWEST_HZ, HIGHEST_HZ = 5.0, 20.0
# How much of the measured time the samples have to cover.
_LEAST_COVER = 0.9
_STOP_SECONDS = 2.0

Sample = Tuple[float, float]


class Window(NamedTuple):
    """Inferences that ran between two moments of `time.monotonic`."""

    start: float
    end: float
    inferences: int


class Energy(NamedTuple):
    """What a window took: watts and joules; `refused` says why there is none.

    `joules_per_inference_above_idle` is without what the board takes when it does nothing; `note` says why there is
    none although that was measured.
    """

    refused: Optional[str]
    source: Optional[str]
    samples: int
    hz: Optional[float]
    seconds: float
    mean_watts: Optional[float]
    least_watts: Optional[float]
    most_watts: Optional[float]
    idle_watts: Optional[float]
    joules_per_inference: Optional[float]
    joules_per_inference_above_idle: Optional[float]
    note: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        return OrderedDict(self._asdict())


class PowerSampler:
    """Measures while its `with` block runs.

    Args:
        sensors: has total_power() -> (watts, how) or None, and why_no_power().
        hz: 5 to 20.

    Raises:
        BadRequest: another rate.
    """

    def __init__(self, sensors: Any, hz: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        if not LOWEST_HZ <= hz <= HIGHEST_HZ:
            raise BadRequest(
                "Power was asked for at {:g} Hz. The monitors are read at {:g} to {:g} Hz: less misses the load, "
                "more takes the CPU from it.".format(hz, LOWEST_HZ, HIGHEST_HZ)
            )
        self.hz = float(hz)
        self.source: Optional[str] = None
        self._sensors = sensors
        self._clock = clock
        self._samples: List[Sample] = []
        self._failure: Optional[str] = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="power", daemon=True)

    def __enter__(self) -> "PowerSampler":
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._stop.set()
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            self._failure = "the power monitor did not answer within {:g} s".format(_STOP_SECONDS)

    @property
    def samples(self) -> List[Sample]:
        """(time.monotonic, watts), so far."""
        return list(self._samples)

    @property
    def failure(self) -> Optional[str]:
        """Why samples are missing; a part of a sentence."""
        if self._failure is not None:
            return self._failure
        reason = self._sensors.why_no_power()
        return None if reason is None else str(reason)

    def energy(self, window: Window, idle_watts: Optional[float] = None) -> Energy:
        """`energy_per_inference` of what was sampled, with the reason of this source where there is too little."""
        found = energy_per_inference(self.samples, window, idle_watts)._replace(source=self.source)
        if found.refused is not None and self.failure is not None:
            return found._replace(refused="{} The reason: {}.".format(found.refused, self.failure))
        return found

    def _measure(self) -> None:
        begin = self._clock()
        tick = 0
        while not self._stop.is_set():
            try:
                self._sample()
            except Exception as error:  # whatever it is, in a thread it would end on stderr and in no verdict
                self._failure = "reading the power failed ({}: {})".format(type(error).__name__, error)
                return
            tick = 1 + max(tick, int((self._clock() - begin) * self.hz))  # what was missed is not caught up with
            self._stop.wait(max(0.0, begin + tick / self.hz - self._clock()))

    def _sample(self) -> None:
        before = self._clock()
        power: Optional[Power] = self._sensors.total_power()
        if power is not None and math.isfinite(power[0]):
            self._samples.append(((before + self._clock()) / 2.0, power[0]))
            self.source = power[1]


def energy_per_inference(samples: Sequence[Sample], window: Window, idle_watts: Optional[float] = None) -> Energy:
    """Joules of one inference: the area under the samples inside a window, over its inferences.

    Args:
        samples: (time, watts), in the order of time.
        window: when how many inferences ran.
        idle_watts: `mean_watts` of a time without load at the same clocks.
    """
    inside = [sample for sample in samples if window.start <= sample[0] <= window.end]
    seconds = window.end - window.start
    refused = _too_little(inside, window)
    if refused is not None:
        return Energy(refused, None, len(inside), None, seconds, None, None, None, idle_watts, None, None)
    mean = area(inside) / (inside[-1][0] - inside[0][0])
    # The samples begin a little after the window and end before it; their mean stands for all of it.
    each = seconds / window.inferences
    watts = [sample[1] for sample in inside]
    note = None
    if idle_watts is not None and idle_watts >= mean:
        note = "The board took {:.2f} W idle and {:.2f} W under load: it had not come to rest before.".format(
            idle_watts, mean
        )
    return Energy(
        refused=None,
        source=None,
        samples=len(inside),
        hz=(len(inside) - 1) / (inside[-1][0] - inside[0][0]),
        seconds=seconds,
        mean_watts=mean,
        least_watts=min(watts),
        most_watts=max(watts),
        idle_watts=idle_watts,
        joules_per_inference=mean * each,
        joules_per_inference_above_idle=None if idle_watts is None or note else (mean - idle_watts) * each,
        note=note,
    )


def idle_power(samples: Sequence[Sample]) -> Optional[float]:
    """Mean watts of a time without load; None under as many samples as an energy needs."""
    if len(samples) < LEAST_SAMPLES or samples[-1][0] <= samples[0][0]:
        return None
    return area(samples) / (samples[-1][0] - samples[0][0])


def area(samples: Sequence[Sample]) -> float:
    """Joules under the samples, by trapezoids over the time that really passed between them."""
    pairs = zip(samples, samples[1:])
    return sum((later - earlier) * (first + second) / 2.0 for (earlier, first), (later, second) in pairs)


def _too_little(inside: Sequence[Sample], window: Window) -> Optional[str]:
    if window.inferences < 1 or window.end <= window.start:
        return "No energy per inference: nothing ran in the measured time."
    if len(inside) < LEAST_SAMPLES:
        return (
            "No energy per inference: {} power samples in {:.1f} s, of {} that it takes. Measure longer "
            "(--duration).".format(len(inside), window.end - window.start, LEAST_SAMPLES)
        )
    cover = (inside[-1][0] - inside[0][0]) / (window.end - window.start)
    if cover < _LEAST_COVER:
        return "No energy per inference: the power samples cover {:.0%} of the measured {:.1f} s.".format(
            cover, window.end - window.start
        )
    return None
