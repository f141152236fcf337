"""The clocks of GPU and CPU: what they are and between what they may move."""

import re
from typing import List, NamedTuple

from .system_files import SystemFiles, Unreadable

# `57000000.gpu` Nano, `17000000.gp10b` TX2, `.gv11b` Xavier, `.ga10b` Orin with JetPack 5, `.gpu` with 6, `gpu-gpc-0`
# Thor, whose `gpu-nvd-0` is the video engine.
_GPU = re.compile(r"(?:[0-9a-f]+\.(?:gpu|gm20b|gp10b|gv11b|ga10b)|gpu-gpc-[0-9]+|gpu)\Z")
_GPU_FOLDERS = ("/sys/class/devfreq", "/sys/devices/gpu.0/devfreq")
_CPUS = "/sys/devices/system/cpu"
_CPU = re.compile(r"cpu[0-9]+\Z")

Frequency = NamedTuple("Frequency", [("name", str), ("now", int), ("minimum", int), ("maximum", int)])


def gpu_folder(files: SystemFiles) -> str:
    """Raises Unreadable where the kernel shows no GPU clock."""
    for folder in _GPU_FOLDERS:
        for name in files.names(folder):
            if _GPU.match(name):
                return "{}/{}".format(folder, name)
    raise Unreadable("there is no GPU in {}".format(" or ".join(_GPU_FOLDERS)))


def gpu_frequency(files: SystemFiles) -> Frequency:
    """In Hz. `minimum` and `maximum` are the limits that the power mode and `jetson_clocks` set.

    Raises:
        Unreadable: one of them is not told.
    """
    folder = gpu_folder(files)
    now, minimum, maximum = (files.number("{}/{}_freq".format(folder, part)) for part in ("cur", "min", "max"))
    if now < 0 or not 0 <= minimum <= maximum or maximum == 0:
        raise Unreadable("{} says {} Hz within {} to {}".format(folder, now, minimum, maximum))
    return Frequency("gpu", now, minimum, maximum)


def cpu_frequencies(files: SystemFiles) -> List[Frequency]:
    """In Hz, of each CPU that is online and tells."""
    found = []
    for name in filter(_CPU.match, files.names(_CPUS)):
        folder = "{}/{}/cpufreq/scaling".format(_CPUS, name)
        try:
            now, minimum, maximum = (files.number("{}_{}_freq".format(folder, part)) for part in ("cur", "min", "max"))
        except Unreadable:  # offline, or without a governor
            continue
        if now >= 0 and 0 <= minimum <= maximum:
            found.append(Frequency(name, now * 1000, minimum * 1000, maximum * 1000))
    return found


def are_pinned(files: SystemFiles) -> bool:
    """Whether neither the GPU nor a CPU may leave its highest clock, as after `jetson_clocks`.

    Raises:
        Unreadable: the GPU's limits are not told.
    """
    clocks = [gpu_frequency(files)] + cpu_frequencies(files)
    return all(clock.minimum == clock.maximum for clock in clocks)
