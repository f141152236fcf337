"""What `tegrastats` prints: another way to power and temperature, where sysfs is closed as in a container.

A line differs by board and release: with or without a date, units and a peak as
a third number, one GPU clock or one for each cluster.
"""

import contextlib
import re
import subprocess
import threading
import time
from typing import Any, Dict, Iterator, NamedTuple, Optional, Tuple

from .programs import end_program, find_program
from .sensors import Power, is_plausible, total_of

_BEFORE, _AFTER = r"(?<!\S)", r"(?!\S)"
# A memory whose unit was cut off looks like a rail.
_NO_RAIL = r"(?!(?:I?RAM|SWAP|CMA) )"
_LATER = r"(?:/-?[0-9]{1,9}(?:mW)?)"
_RAIL = re.compile(_BEFORE + _NO_RAIL + r"([0-9]*[A-Z][A-Z0-9_]*) (-?[0-9]{1,9})(?:mW)?" + _LATER + "{1,2}" + _AFTER)
_ZONE = re.compile(_BEFORE + r"([A-Za-z]\w*)@(-?[0-9]{1,4}(?:\.[0-9]{1,6})?)C(?:/-?[0-9.]{1,12}C)?" + _AFTER)
_RAM = re.compile(_BEFORE + r"RAM ([0-9]{1,9})/([0-9]{1,9})MB" + _AFTER)
_GPU = re.compile(_BEFORE + r"GR3D_FREQ (?:([0-9]{1,3})%)?(?:@\[?([0-9]{1,6}(?:, ?[0-9]{1,6})*)\]?)?" + _AFTER)

_LAST_WORDS_SECONDS = 2.0
_FIRST_LINE_SECONDS = 3.0


class Line(NamedTuple):
    """One line: bytes, deg C by zone, watts by rail, Hz. Its first numbers, which are those of the moment."""

    ram_used_bytes: Optional[int]
    ram_bytes: Optional[int]
    temperatures: Dict[str, float]
    rails: Dict[str, float]
    gpu_percent: Optional[int]
    gpu_clock_hz: Optional[int]


def parse(line: str) -> Line:
    """A line of tegrastats. What is not in it, or in no form that is known, is left out."""
    ram, gpu = _RAM.search(line), _GPU.search(line)
    zones = ((name, float(celsius)) for name, celsius in _ZONE.findall(line))
    clocks = [int(mhz) for mhz in re.findall("[0-9]+", (gpu.group(2) or "") if gpu else "")]
    return Line(
        ram_used_bytes=int(ram.group(1)) << 20 if ram else None,
        ram_bytes=int(ram.group(2)) << 20 if ram else None,
        temperatures={name: celsius for name, celsius in zones if is_plausible(name, celsius)},
        rails={name: int(milliwatts) / 1000.0 for name, milliwatts in _RAIL.findall(line)},
        gpu_percent=int(gpu.group(1)) if gpu and gpu.group(1) else None,
        gpu_clock_hz=max(clocks) * 1000000 if clocks else None,
    )


class Tegrastats:
    """A running tegrastats; has `total_power` and `temperatures` as `Sensors` has. A context manager.

    Args:
        hz: how often it shall measure.
        program: its path; by default where L4T has it.
    """

    def __init__(self, hz: float, program: Optional[str] = None) -> None:
        self._program = program or find_program("tegrastats")
        self._milliseconds = str(max(1, int(round(1000.0 / hz))))
        self._lock = threading.Lock()
        self._line = parse("")
        self._is_new = False
        self._reason: Optional[str] = "tegrastats has not printed a line"
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self._reader = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Tegrastats":
        if self._program is None:
            self._reason = "there is no tegrastats"
            return self
        try:
            self._process = subprocess.Popen(
                [self._program, "--interval", self._milliseconds],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._reason = "{} cannot be started ({})".format(self._program, error.strerror or error)
            return self
        self._reader.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._process is not None:
            end_program(self._process)
            self._process.wait()
            self._reader.join(_LAST_WORDS_SECONDS)

    def total_power(self) -> Optional[Power]:
        """Of the newest line, once; None until there is another."""
        with self._lock:
            is_new, self._is_new = self._is_new, False
            power = total_of(self._line.rails) if is_new else None
        return None if power is None else (power[0], "{} by tegrastats".format(power[1]))

    def temperatures(self) -> Dict[str, float]:
        with self._lock:
            return dict(self._line.temperatures)

    def why_no_power(self) -> Optional[str]:
        """Why `total_power` never had a value; a part of a sentence."""
        return self._reason

    def has_power(self, seconds: float) -> bool:
        """Whether a line with power came, or comes within that time."""
        end = time.monotonic() + seconds
        while self._reason is not None and self._reader.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        return self._reason is None

    def _follow(self) -> None:
        stream = self._process.stdout if self._process is not None else None
        for raw in stream or ():
            line = parse(raw.decode("utf-8", "replace"))
            with self._lock:
                self._line, self._is_new = line, True
                self._reason = None if line.rails else "tegrastats prints no power rail"
        if stream is not None:
            stream.close()
        if self._reason is not None and self._process is not None:
            self._reason += " and ended"


@contextlib.contextmanager
def power_source(sensors: Any, hz: float) -> Iterator[Tuple[Any, Optional[str]]]:
    """What a PowerSampler can measure with: the sensors, or tegrastats where they tell no power.

    Gives (source, None), or (sensors, why there is no power) as a part of a sentence.
    """
    if sensors.total_power() is not None:
        yield sensors, None
        return
    with Tegrastats(hz) as stats:
        if stats.has_power(_FIRST_LINE_SECONDS):
            yield stats, None
        else:
            yield sensors, "{}, and {}".format(sensors.why_no_power(), stats.why_no_power())
