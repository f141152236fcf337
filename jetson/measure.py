"""Timing and power of a loaded graph."""

import time
from typing import Any, Dict, Mapping

import numpy as np

from .backend import Job, Loaded
from .power import LEAST_SAMPLES, PowerSampler, Window, idle_power
from .sensors import Sensors
from .tegrastats import power_source
from .timing import options_for

POWER_HZ = 10.0
_LEAST_SECONDS = 2.5 * LEAST_SAMPLES / POWER_HZ

Feeds = Mapping[str, np.ndarray]


def measure_time(loaded: Loaded, feeds: Feeds, job: Job) -> Dict[str, Any]:
    """How long the graph takes, as JSON values."""
    job.log.say("timing: {:g} s without copies, where it can be, and {:g} s with".format(*2 * [job.options.duration]))
    return loaded.time(feeds, options_for(job.options.duration, job.options.quick))


def measure_power(loaded: Loaded, feeds: Feeds, job: Job, sensors: Sensors) -> Dict[str, Any]:
    """Watts and joules per inference as JSON values; `refused` says why there are none."""
    if job.options.quick:
        return {"refused": "Not measured: --quick."}
    if loaded.no_power:
        return {"refused": "Not measured: {}.".format(loaded.no_power)}
    with power_source(sensors, POWER_HZ) as (source, reason):
        if reason is not None:
            return {"refused": "Power could not be measured: {}.".format(reason)}
        job.log.say("power: {:g} s of load, after a few without".format(max(job.options.duration, _LEAST_SECONDS)))
        idle = _idle(source)
        with PowerSampler(source, POWER_HZ) as sampler:
            start = time.monotonic()
            count = loaded.keep_running(feeds, max(job.options.duration, _LEAST_SECONDS))
            window = Window(start, time.monotonic(), count)
        return sampler.energy(window, idle).as_dict()


def _idle(sensors: Any) -> Any:
    """Watts without load at the present clocks; None where there are too few samples."""
    with PowerSampler(sensors, POWER_HZ) as sampler:
        time.sleep(_LEAST_SECONDS)
    return idle_power(sampler.samples)
