"""Temperatures, power rails and throttling of a board, from sysfs.

Power comes from the INA3221 monitors on the board, in the layout of JetPack 4
(`iio:device`, with power in mW) or of later ones (`hwmon`, voltage and current).
Layouts and rail names as jetson_stats and the kernel's `ina3221` document them.
"""

import re
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

from . import frequencies
from .system_files import SystemFiles, Unreadable

# The rail through which everything flows, by board: Nano; TX2, Xavier NX, Orin NX and Nano; early Xavier NX; Thor.
# AGX Xavier and AGX Orin have none.
TOTAL_RAILS = ("POM_5V_IN", "VDD_IN", "5V_IN", "VIN")

_BUS = "/sys/bus/i2c/devices"
_HWMON = "/sys/class/hwmon"
_THERMAL = "/sys/class/thermal"
_NOT_CONNECTED = re.compile(r"\bNC\b")
_ALERTS = ("/sys/devices", "/sys/devices/platform")
_MOST_SENTENCES = 20
_LOWEST_CELSIUS, _HIGHEST_CELSIUS = -40.0, 150.0

Power = Tuple[float, str]


class Reading(NamedTuple):
    """What was measured at one moment: deg C, counts since boot, cooling steps, Hz."""

    temperatures: Dict[str, float]
    throttle_counters: Dict[str, int]
    cooling_states: Dict[str, int]
    gpu_clock_hz: Optional[int]

    def as_dict(self) -> Dict[str, Any]:
        return dict(self._asdict())


class _Rail(NamedTuple):
    """One channel: files whose product, divided by `per_watt`, is its power."""

    label: str
    files: Tuple[str, ...]
    per_watt: float


class Sensors:
    """The sensors of a board. Nothing here fails: what cannot be read is left out and `unread` says why."""

    def __init__(self, root: str = "/") -> None:
        self._files = SystemFiles(root)
        self.unread: List[str] = []
        self._rails = {rail.label: rail for rail in self._find_rails()}
        self._total = next((label for label in TOTAL_RAILS if label in self._rails), None)
        self._reason: Optional[str] = None
        if not self._rails:
            self._reason = "there is no power monitor (INA3221) in {} that can be read".format(_BUS)

    def temperatures(self) -> Dict[str, float]:
        """Degrees Celsius by zone, as `GPU` or `gpu`. A zone that is switched off is left out."""
        found: Dict[str, float] = {}
        for zone, folder in self._zones():
            celsius = self._number(folder + "/temp")
            if celsius is not None and is_plausible(zone, celsius / 1000.0):
                found[zone] = celsius / 1000.0
        return found

    def limits(self) -> Dict[str, float]:
        """The temperature by zone from which on the kernel slows the board down."""
        found: Dict[str, float] = {}
        for zone, folder in self._zones():
            trips = list(self._trips(folder))
            if trips:
                found[zone] = min(trips)
        return found

    def rails(self) -> Dict[str, float]:
        """Watts by rail; a rail that cannot be read at the moment is left out."""
        found = {}
        for label, rail in self._rails.items():
            watts = self._watts(rail)
            if watts is not None:
                found[label] = watts
        return found

    def total_power(self) -> Optional[Power]:
        """(watts, how it was found) of the whole board; None where `why_no_power` has a reason.

        A sum without one of its rails would be too small, and is none.
        """
        if self._total is not None:
            watts = self._watts(self._rails[self._total])
            return None if watts is None else (watts, "rail {}".format(self._total))
        rails = self.rails()
        if not rails or len(rails) < len(self._rails):
            return None
        return total_of(rails)

    def why_no_power(self) -> Optional[str]:
        """The reason of the latest `total_power` that was None; a part of a sentence."""
        return self._reason

    def throttle_counters(self) -> Dict[str, int]:
        """Events since boot: over-current alarms (Orin, Thor) and thermal trips (`gpu-throttle-alert`)."""
        found: Dict[str, int] = {}
        for name in self._files.names(_HWMON):
            folder = "{}/{}".format(_HWMON, name)
            if self._text(folder + "/name") == "soctherm_oc":
                for counter in self._files.names(folder):
                    if re.match(r"oc[0-9]+_event_cnt\Z", counter):
                        self._count(found, counter[: -len("_event_cnt")], "{}/{}".format(folder, counter))
        for parent in _ALERTS:
            for name in self._files.names(parent):
                if name.endswith("-throttle-alert"):
                    self._count(found, name, "{}/{}/thermal_trip_event".format(parent, name))
        return found

    def cooling_states(self) -> Dict[str, int]:
        """The step at which each cooling device is, by kind; 0 is off. Fans are among them."""
        found: Dict[str, int] = {}
        for name in self._files.names(_THERMAL):
            if name.startswith("cooling_device"):
                kind = self._text("{}/{}/type".format(_THERMAL, name))
                state = self._number("{}/{}/cur_state".format(_THERMAL, name))
                if kind is not None and state is not None:
                    found[kind] = max(state, found.get(kind, state))
        return found

    def gpu_clock_hz(self) -> Optional[int]:
        try:
            return frequencies.gpu_frequency(self._files).now
        except Unreadable as reason:
            self._note(reason)
            return None

    def read(self) -> Reading:
        return Reading(self.temperatures(), self.throttle_counters(), self.cooling_states(), self.gpu_clock_hz())

    def _find_rails(self) -> Iterator[_Rail]:
        seen: Set[str] = set()
        for address, folder in self._monitors():
            for rail in self._channels(folder):
                if rail.label in seen:  # two monitors with the same names: both count in a sum
                    rail = rail._replace(label="{} ({})".format(rail.label, address))
                seen.add(rail.label)
                yield rail

    def _monitors(self) -> Iterator[Tuple[str, str]]:
        for address in self._files.names(_BUS):
            chip = "{}/{}".format(_BUS, address)
            if re.match("ina[23]", self._text(chip + "/name") or ""):
                folders = [chip + "/" + name for name in self._files.names(chip) if name.startswith("iio:device")]
                folders += ["{}/hwmon/{}".format(chip, name) for name in self._files.names(chip + "/hwmon")]
                for folder in folders:
                    yield address, folder

    def _channels(self, folder: str) -> Iterator[_Rail]:
        for name in self._files.names(folder):
            old, new = re.match(r"rail_name_([0-9])\Z", name), re.match(r"in([1-3])_label\Z", name)
            if not (old or new or name == "label"):
                continue
            label = self._text("{}/{}".format(folder, name))
            if label is None or _NOT_CONNECTED.search(label):
                continue
            if old:
                yield self._old_rail(label, folder, old.group(1))
            elif new and self._files.exists("{}/curr{}_input".format(folder, new.group(1))):
                number = new.group(1)
                if not self._is_off("{}/in{}_enable".format(folder, number)):
                    parts = ("{}/in{}_input".format(folder, number), "{}/curr{}_input".format(folder, number))
                    yield _Rail(label, parts, 1e6)
            elif name == "label" and self._files.exists(folder + "/power1_input"):  # INA238 of Thor, in microwatts
                yield _Rail(label, (folder + "/power1_input",), 1e6)

    def _old_rail(self, label: str, folder: str, number: str) -> _Rail:
        power = "{}/in_power{}_input".format(folder, number)
        if self._files.exists(power):
            return _Rail(label, (power,), 1e3)
        parts = tuple("{}/in_{}{}_input".format(folder, what, number) for what in ("voltage", "current"))
        return _Rail(label, parts, 1e6)

    def _is_off(self, path: str) -> bool:
        return self._files.exists(path) and self._number(path) == 0

    def _watts(self, rail: _Rail) -> Optional[float]:
        product = 1.0
        for path in rail.files:
            try:
                product *= self._files.number(path)
            except Unreadable as reason:
                self._note(reason)
                self._reason = "rail {}: {}".format(rail.label, reason)
                return None
        return product / rail.per_watt

    def _zones(self) -> Iterator[Tuple[str, str]]:
        """(name, folder) of each zone; a second one of a name gets a number."""
        taken: Dict[str, int] = {}
        for name in self._files.names(_THERMAL):
            if name.startswith("thermal_zone"):
                folder = "{}/{}".format(_THERMAL, name)
                kind = self._text(folder + "/type")
                if kind is not None:
                    zone = re.sub(r"[-_]therm(al)?\Z", "", kind)
                    taken[zone] = taken.get(zone, 0) + 1
                    yield zone if taken[zone] == 1 else "{}-{}".format(zone, taken[zone]), folder

    def _trips(self, folder: str) -> Iterator[float]:
        for name in self._files.names(folder):
            found = re.match(r"trip_point_([0-9]+)_type\Z", name)
            if found and self._text("{}/{}".format(folder, name)) in ("passive", "hot", "critical"):
                celsius = self._number("{}/trip_point_{}_temp".format(folder, found.group(1)))
                if celsius is not None and 0 < celsius / 1000.0 < _HIGHEST_CELSIUS:
                    yield celsius / 1000.0

    def _count(self, found: Dict[str, int], name: str, path: str) -> None:
        count = self._number(path)
        if count is not None:
            found[name] = count

    def _text(self, path: str) -> Optional[str]:
        try:
            return self._files.text(path)
        except Unreadable as reason:
            self._note(reason)
            return None

    def _number(self, path: str) -> Optional[int]:
        try:
            return self._files.number(path)
        except Unreadable as reason:
            self._note(reason)
            return None

    def _note(self, reason: Unreadable) -> None:
        text = str(reason)
        sentence = "{}{}.".format(text[:1].upper(), text[1:])
        if sentence not in self.unread and len(self.unread) < _MOST_SENTENCES:
            self.unread.append(sentence)


def total_of(rails: Mapping[str, float]) -> Optional[Power]:
    """(watts, how) of the whole board from its rails: the one that carries all, or the sum of them."""
    for label in TOTAL_RAILS:
        if label in rails:
            return rails[label], "rail {}".format(label)
    return (sum(rails.values()), "sum of {}".format(", ".join(rails))) if rails else None


def is_plausible(zone: str, celsius: float) -> bool:
    """A sensor that is off reads -256; the PMIC's of JetPack 4 is a constant."""
    return "PMIC" not in zone.upper() and _LOWEST_CELSIUS < celsius < _HIGHEST_CELSIUS
