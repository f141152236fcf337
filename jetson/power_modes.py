"""The power modes of nvpmodel: which one is on, and which one is the highest.

Their numbers mean something else on each module: 0 is the highest on a Nano and
15 W of 25 on an Orin Nano, and a Xavier NX has none called MAXN.
"""

import math
import re
from typing import List, NamedTuple, Optional

from .programs import ProgramFailed, find_program, run_program
from .system_files import SystemFiles, Unreadable

_CONF = "/etc/nvpmodel.conf"
_STATUS = "/var/lib/nvpmodel/status"
_QUERY_SECONDS = 5.0

_HEADER = re.compile(r"<\s*(\w+)\b([^>]*)>")
_ID = re.compile(r"\bID\s*=\s*([0-9]{1,6})\b")
_NAME = re.compile(r"\bNAME\s*=\s*(\S+)")
_CURRENT = re.compile(r"\bpmode:\s*([0-9]{1,6})\b")
_ANSWER = re.compile(r"NV Power Mode:\s*(\S+)\s+([0-9]{1,6})\b")
_NO_LIMIT = 2147483647  # nvpmodel's own spelling of -1

PowerMode = NamedTuple("PowerMode", [("id", int), ("name", Optional[str])])


class ModeLimits(NamedTuple):
    """One mode of nvpmodel.conf: its GPU limit in Hz, infinite where it sets none, and its CPU cores."""

    id: int
    name: str
    gpu_hz: Optional[float]
    cores: int


def read_modes(files: SystemFiles) -> List[ModeLimits]:
    """Raises Unreadable where there is no nvpmodel.conf or it names no mode."""
    modes = parse_modes(files.text(_CONF))
    if not modes:
        raise Unreadable("{} names no power mode".format(_CONF))
    return modes


def parse_modes(text: str) -> List[ModeLimits]:
    """The POWER_MODEL sections of an nvpmodel.conf, in its order."""
    modes: List[ModeLimits] = []
    inside = False
    for line in (line.strip() for line in text.splitlines()):
        header = _HEADER.match(line)
        if header:
            mode = _mode(header.group(2)) if header.group(1) == "POWER_MODEL" else None
            inside = mode is not None
            if mode is not None:
                modes.append(mode)
        elif inside:
            modes[-1] = _with_setting(modes[-1], line.split())
    return modes


def current_mode(files: SystemFiles, modes: List[ModeLimits]) -> PowerMode:
    """The mode that is on: from the file in which nvpmodel keeps it, else from nvpmodel itself.

    Raises:
        Unreadable: neither tells.
    """
    try:
        text = files.text(_STATUS)
        found = _CURRENT.search(text)
        if not found:
            raise Unreadable("{} names no mode ({!r})".format(_STATUS, text[:40]))
    except Unreadable as reason:
        return _asked(files, reason)
    number = int(found.group(1))
    return PowerMode(number, next((mode.name for mode in modes if mode.id == number), None))


def highest_modes(modes: List[ModeLimits]) -> List[ModeLimits]:
    """The modes that let the GPU run fastest, the one with most CPU cores first; none where that is not told."""
    for suffix in ("MAXNSUPER", "MAXN"):
        named = [mode for mode in modes if re.sub("[^A-Z]", "", mode.name.upper()).endswith(suffix)]
        if named:
            return named
    limits = [mode.gpu_hz for mode in modes if mode.gpu_hz is not None]
    if not modes or (len(modes) > 1 and len(limits) < len(modes)):
        return []
    fastest = max(limits) if limits else None
    return sorted((mode for mode in modes if mode.gpu_hz == fastest), key=lambda mode: (-mode.cores, mode.id))


def _mode(attributes: str) -> Optional[ModeLimits]:
    number, name = _ID.search(attributes), _NAME.search(attributes)
    return ModeLimits(int(number.group(1)), name.group(1), None, 0) if number and name else None


def _with_setting(mode: ModeLimits, words: List[str]) -> ModeLimits:
    if len(words) != 3:
        return mode
    if words[:2] == ["GPU", "MAX_FREQ"] and re.match(r"-?[0-9]{1,18}\Z", words[2]):
        limit = int(words[2])
        return mode._replace(gpu_hz=math.inf if limit < 0 or limit >= _NO_LIMIT else float(limit))
    if words[0] == "CPU_ONLINE" and words[2] == "1":
        return mode._replace(cores=mode.cores + 1)
    return mode


def _asked(files: SystemFiles, reason: Unreadable) -> PowerMode:
    program = find_program("nvpmodel") if files.is_this_system else None
    if program is None:
        raise reason
    try:
        answer = run_program([program, "-q"], _QUERY_SECONDS)
    except ProgramFailed as error:
        raise Unreadable("{}, and {}".format(reason, error)) from error
    found = _ANSWER.search(answer.output)
    if answer.code != 0 or not found:
        said = (answer.output.strip().splitlines() or ["nothing"])[-1]
        raise Unreadable("{}, and `nvpmodel -q` said {!r}".format(reason, said[:80]))
    return PowerMode(int(found.group(2)), found.group(1))
