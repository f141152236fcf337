"""What board this is and in what state, read from the files in which Linux and L4T tell."""

import json
import platform
import re
from collections import OrderedDict
from types import MappingProxyType
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple, TypeVar

from . import frequencies, power_modes
from .power_modes import PowerMode
from .system_files import SystemFiles, Unreadable

_RELEASE = "/etc/nv_tegra_release"
_MODEL = "/proc/device-tree/model"
_COMPATIBLE = "/proc/device-tree/compatible"
_PACKAGES = "/var/lib/dpkg/status"
_LIBRARIES = ("/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu")

# From the tables of jetson_stats and NVIDIA's JetPack archive; a release that is not here is looked up in dpkg's list.
_JETPACK: Mapping[str, str] = MappingProxyType(
    {
        "32.1": "4.2",
        "32.2": "4.2.1",
        "32.2.1": "4.2.2",
        "32.2.3": "4.2.3",
        "32.3.1": "4.3",
        "32.4.3": "4.4",
        "32.4.4": "4.4.1",
        "32.5": "4.5",
        "32.5.0": "4.5",
        "32.5.1": "4.5.1",
        "32.5.2": "4.5.1",
        "32.6.1": "4.6",
        "32.7.1": "4.6.1",
        "32.7.2": "4.6.2",
        "32.7.3": "4.6.3",
        "32.7.4": "4.6.4",
        "32.7.5": "4.6.5",
        "32.7.6": "4.6.6",
        "35.1.0": "5.0.2",
        "35.2.1": "5.1",
        "35.3.1": "5.1.1",
        "35.4.1": "5.1.2",
        "35.5.0": "5.1.3",
        "35.6.0": "5.1.4",
        "35.6.1": "5.1.5",
        "35.6.4": "5.1.6",
        "36.3.0": "6.0",
        "36.4.0": "6.1",
        "36.4.3": "6.2",
        "36.4.4": "6.2.1",
        "36.5.0": "6.2.2",
        "36.5.2": "6.2.3",
        "38.2.0": "7.0",
        "38.2.1": "7.0",
        "38.4.0": "7.1",
        "39.2.0": "7.2",
        "39.2.1": "7.2.1",
    }
)
_COMPUTE_CAPABILITY: Mapping[str, str] = MappingProxyType(
    {"tegra210": "5.3", "tegra186": "6.2", "tegra194": "7.2", "tegra234": "8.7", "tegra264": "11.0"}
)
_MOST_CPUS = 4096

_Known = TypeVar("_Known")


class Board(NamedTuple):
    """A board as it was found. What is None could not be read, and `unread` says why.

    Memory and swap are bytes, clocks Hz. `is_max_power` is whether `power_mode` lets the GPU run as fast as any mode
    of this module does; `max_power_mode` is the one that does. `clocks_pinned` is whether GPU and CPUs are held at the
    highest clock of the mode.
    """

    l4t: Optional[str]
    jetpack: Optional[str]
    module: Optional[str]
    soc: Optional[str]
    compute_capability: Optional[str]
    tensorrt: Optional[str]
    cuda: Optional[str]
    memory_bytes: Optional[int]
    available_bytes: Optional[int]
    swap_bytes: Optional[int]
    swap_used_bytes: Optional[int]
    swap_kind: Optional[str]
    power_mode: Optional[PowerMode]
    max_power_mode: Optional[PowerMode]
    is_max_power: Optional[bool]
    gpu_clock_hz: Optional[int]
    gpu_min_clock_hz: Optional[int]
    gpu_max_clock_hz: Optional[int]
    clocks_pinned: Optional[bool]
    cpu_count: Optional[int]
    python: str
    kernel: Optional[str]
    unread: Tuple[str, ...]

    @property
    def is_jetson(self) -> bool:
        return self.l4t is not None or self.soc is not None

    def as_dict(self) -> Dict[str, Any]:
        """For JSON, in this order."""
        words = OrderedDict(self._asdict())
        for name in ("power_mode", "max_power_mode"):
            mode = words[name]
            words[name] = None if mode is None else {"id": mode.id, "name": mode.name}
        words["unread"] = list(self.unread)
        return words


def look(root: str = "/") -> Board:
    """Reads all of it; never fails.

    Args:
        root: the folder that stands for `/`, for a tree that was recorded on a board.
    """
    inquiry = _Inquiry(SystemFiles(root))
    soc = inquiry.ask("the SoC", _soc)
    l4t = inquiry.ask("the L4T release", _l4t)
    if soc is None and l4t is None:  # then the rest of what only a Jetson has is no news
        inquiry.unread[:] = ["This is no Jetson: {} and {} do not say so.".format(_RELEASE, _COMPATIBLE)]
    known: Dict[str, Any] = {"soc": soc, "l4t": l4t, "compute_capability": _COMPUTE_CAPABILITY.get(soc or "")}
    if soc is not None or l4t is not None:
        known.update(_jetson_parts(inquiry, soc, l4t))
    known.update(_common_parts(inquiry))
    known["unread"] = tuple(inquiry.unread)
    return Board._make(known.get(name) for name in Board._fields)


class _Inquiry:
    """Asks for one thing after the other and keeps the reasons of what is not known."""

    def __init__(self, files: SystemFiles) -> None:
        self.files = files
        self.unread: List[str] = []
        self._packages: Optional[Dict[str, str]] = None

    def ask(self, what: str, answer: Callable[[SystemFiles], _Known]) -> Optional[_Known]:
        try:
            return answer(self.files)
        except Unreadable as reason:
            self.unread.append("{} is not known: {}.".format(what[:1].upper() + what[1:], reason))
            return None

    def package(self, pattern: str) -> Optional[str]:
        """Version of the first installed package of that name, as dpkg has it."""
        if self._packages is None:
            self._packages = _packages(self.files)
        return next((self._packages[name] for name in self._packages if re.match(pattern + r"\Z", name)), None)


def _jetson_parts(inquiry: _Inquiry, soc: Optional[str], l4t: Optional[str]) -> Dict[str, Any]:
    if soc is not None and soc not in _COMPUTE_CAPABILITY:
        inquiry.unread.append("The compute capability is not known: {} is no SoC of the table.".format(soc))
    modes = inquiry.ask("the list of power modes", power_modes.read_modes) or []
    mode = inquiry.ask("the power mode", lambda files: power_modes.current_mode(files, modes))
    highest = power_modes.highest_modes(modes)
    best = highest[0] if highest else None
    clock = inquiry.ask("the GPU clock", frequencies.gpu_frequency)
    parts: Dict[str, Any] = {
        "module": inquiry.ask("the module", lambda files: files.text(_MODEL)),
        "jetpack": inquiry.ask("the JetPack release", lambda files: _jetpack(inquiry, l4t)),
        "tensorrt": inquiry.ask("the TensorRT version", lambda files: _tensorrt(inquiry)),
        "cuda": inquiry.ask("the CUDA version", lambda files: _cuda(inquiry)),
        "power_mode": mode,
        "max_power_mode": PowerMode(best.id, best.name) if best else None,
        "is_max_power": mode.id in [each.id for each in highest] if mode and highest else None,
    }
    if modes and not highest:
        inquiry.unread.append("The highest power mode is not known: nvpmodel.conf limits the GPU in none of them.")
    if clock is not None:
        parts.update(gpu_clock_hz=clock.now, gpu_min_clock_hz=clock.minimum, gpu_max_clock_hz=clock.maximum)
        parts["clocks_pinned"] = inquiry.ask("whether the clocks are pinned", frequencies.are_pinned)
    return parts


def _common_parts(inquiry: _Inquiry) -> Dict[str, Any]:
    memory = inquiry.ask("the memory", _memory) or {}
    for name, key in (("The memory's size", "MemTotal"), ("The available memory", "MemAvailable")):
        if memory and key not in memory:
            inquiry.unread.append("{} is not known: /proc/meminfo has no {}.".format(name, key))
    swap = inquiry.ask("the swap", _swap)
    return {
        "memory_bytes": memory.get("MemTotal"),
        "available_bytes": memory.get("MemAvailable"),
        "swap_bytes": swap[0] if swap else None,
        "swap_used_bytes": swap[1] if swap else None,
        "swap_kind": swap[2] if swap else None,
        "cpu_count": inquiry.ask("the number of CPUs", _cpu_count),
        "kernel": inquiry.ask("the kernel", lambda files: files.text("/proc/sys/kernel/osrelease")),
        "python": platform.python_version(),
    }


def _soc(files: SystemFiles) -> str:
    text = files.text(_COMPATIBLE)
    found = re.search(r"nvidia,(tegra[0-9]{3})\b", text)
    if not found:
        raise Unreadable("{} names no Tegra".format(_COMPATIBLE))
    return found.group(1)


def _l4t(files: SystemFiles) -> str:
    text = files.text(_RELEASE)
    found = re.search(r"\bR([0-9]{1,3}) \(release\), REVISION: ([0-9]{1,3}(?:\.[0-9]{1,3}){0,2})\b", text)
    if not found:
        raise Unreadable("{} names no release ({!r})".format(_RELEASE, text[:60]))
    return "{}.{}".format(found.group(1), found.group(2))


def _jetpack(inquiry: _Inquiry, l4t: Optional[str]) -> str:
    if l4t in _JETPACK:
        return _JETPACK[l4t or ""]
    version = inquiry.package("nvidia-jetpack")
    if version is None:
        reason = "no L4T release to look up" if l4t is None else "L4T {} is not in the table".format(l4t)
        raise Unreadable("{}, and the package nvidia-jetpack is not installed".format(reason))
    return version.split("-")[0].split("+")[0]


def _tensorrt(inquiry: _Inquiry) -> str:
    """From the name of its library, as 8.2.1; `import tensorrt` would take a second and hundreds of MB."""
    found = _versions(inquiry.files, _LIBRARIES, r"libnvinfer\.so\.([0-9]+\.[0-9]+\.[0-9]+)\Z")
    if found:
        return found[-1]
    version = inquiry.package("libnvinfer[0-9]*")
    if version is None:
        raise Unreadable("there is no libnvinfer.so in {}".format(" or ".join(_LIBRARIES)))
    return version.split("-")[0]


def _cuda(inquiry: _Inquiry) -> str:
    files = inquiry.files
    try:
        version = json.loads(files.text("/usr/local/cuda/version.json"))["cuda"]["version"]
        if isinstance(version, str) and version:
            return version
    except (Unreadable, ValueError, KeyError, TypeError, RecursionError):  # before CUDA 11.1 there is the other file
        pass
    try:
        found = re.search(r"CUDA Version ([0-9.]+)", files.text("/usr/local/cuda/version.txt"))
    except Unreadable:
        found = None
    if found:
        return found.group(1)
    named = _versions(files, ["/usr/local"], r"cuda-([0-9]+\.[0-9]+)\Z")
    if not named:
        raise Unreadable("there is no /usr/local/cuda with a version")
    return named[-1]


def _memory(files: SystemFiles) -> Dict[str, int]:
    found = re.findall(r"^(\w+):\s*([0-9]{1,15}) kB$", files.text("/proc/meminfo"), re.MULTILINE)
    if not found:
        raise Unreadable("/proc/meminfo holds no sizes")
    return {name: int(kib) * 1024 for name, kib in found}


def _swap(files: SystemFiles) -> Tuple[int, int, str]:
    """(bytes, bytes in use, kinds as `zram` or `file+zram`), `none` without any."""
    lines = files.text("/proc/swaps").splitlines()
    if not lines[0].startswith("Filename"):
        raise Unreadable("/proc/swaps begins with {!r}".format(lines[0][:40]))
    size, used, kinds = 0, 0, set()
    for words in (line.split() for line in lines[1:]):
        if len(words) != 5 or not re.match(r"[0-9]{1,15} [0-9]{1,15}\Z", " ".join(words[2:4])):
            raise Unreadable("/proc/swaps has the line {!r}".format(" ".join(words)[:60]))
        size += int(words[2]) * 1024
        used += int(words[3]) * 1024
        kinds.add("zram" if "zram" in words[0] else words[1])
    return size, used, "+".join(sorted(kinds)) or "none"


def _cpu_count(files: SystemFiles) -> int:
    """CPUs that are online: a power mode may switch some off."""
    path = "/sys/devices/system/cpu/online"
    text = files.text(path)
    count = 0
    for part in text.split(","):
        found = re.match(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z", part.strip())
        first, last = (int(found.group(1)), int(found.group(2) or found.group(1))) if found else (1, 0)
        if last < first or last >= _MOST_CPUS:
            raise Unreadable("{} holds {!r}".format(path, text[:40]))
        count += last - first + 1
    return count


def _packages(files: SystemFiles) -> Dict[str, str]:
    """Installed packages of dpkg, name -> version; none where its list cannot be read."""
    try:
        text = files.text(_PACKAGES)
    except Unreadable:
        return {}
    found = {}
    for paragraph in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed") and "Version" in fields:
            found[fields.get("Package", "")] = fields["Version"]
    return found


def _versions(files: SystemFiles, folders: Any, pattern: str) -> List[str]:
    """What the pattern's group finds among the names in these folders, the newest last."""
    matches = (re.match(pattern, name) for folder in folders for name in files.names(folder))
    return sorted((match.group(1) for match in matches if match), key=lambda text: [int(p) for p in text.split(".")])
