"""The machine that something was timed on, as far as it decides the times."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CPUINFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """The processor as the operating system names it."""
    models = [line.partition(":")[2].strip() for line in _lines(_CPUINFO) if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def usable_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, object]:
    """Processor, number of processors, operating system, and the clock's governor where the kernel tells it."""
    return {
        "cpu": cpu_name(),
        "cpus": usable_cpus(),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "governor": next(iter(_lines(_GOVERNOR)), None),
    }


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
