"""trtexec: TensorRT's own program, for boards without its Python module. Where it is, and what its version can do.

Its flags come and go with its version, which it says itself.
"""

import os
import re
import shutil
import subprocess
from types import MappingProxyType
from typing import Mapping, NamedTuple, Sequence, Tuple

from .errors import BadRequest

_PLACE = os.path.join("usr", "src", "tensorrt", "bin", "trtexec")
_OLDEST = (8, 0)
_SECONDS_FOR_HELP = 60
_MOST_NAMES = 5

# Flag -> (the first version that has it, the first that has it no more); from sampleOptions.cpp at each release.
_FLAGS: Mapping[str, Tuple[Tuple[int, int], Tuple[int, int]]] = MappingProxyType(
    {
        "explicitBatch": ((8, 0), (8, 4)),  # accepted up to 8.6, needed by none of those
        "workspace": ((8, 0), (8, 4)),  # accepted up to 8.6
        "memPoolSize": ((8, 4), (99, 0)),
        "buildOnly": ((8, 0), (8, 6)),
        "skipInference": ((8, 6), (99, 0)),
        "fp16": ((8, 0), (11, 0)),
        "precisionConstraints": ((8, 2), (11, 0)),
        "layerPrecisions": ((8, 4), (11, 0)),
        "layerOutputTypes": ((8, 4), (11, 0)),
        "stronglyTyped": ((10, 0), (11, 0)),  # from 11 on there is nothing else
        "profilingVerbosity": ((8, 2), (99, 0)),
        "exportLayerInfo": ((8, 2), (99, 0)),
        "useCudaGraph": ((8, 0), (11, 0)),  # the default from 11 on
        "useSpinWait": ((8, 0), (11, 0)),  # likewise
        "includeDataTransfers": ((11, 0), (99, 0)),  # the default before 11
    }
)

_BANNER = re.compile(r"TensorRT\.trtexec \[TensorRT v(\d{4,6})\]")
_UNSPEAKABLE = re.compile("[,:'*]")  # what separates names in trtexec's flags


class Tool(NamedTuple):
    """A trtexec: where it is, and its version as (8, 2, 1)."""

    path: str
    version: Tuple[int, int, int]

    def has(self, flag: str) -> bool:
        """Whether this version has a flag of the table above."""
        first, gone = _FLAGS[flag]
        return first <= self.version[:2] < gone

    def title(self) -> str:
        return "trtexec {}".format(".".join(map(str, self.version)))


def find(root: str = "/") -> Tool:
    """The trtexec of this machine: where JetPack has it, else the one on PATH.

    Raises:
        BadRequest: there is none, it does not start, or it is older than 8.0.
    """
    place = os.path.join(root, _PLACE)
    path = place if os.access(place, os.X_OK) else shutil.which("trtexec")
    if path is None:
        raise BadRequest(
            "trtexec is neither at {} nor on PATH. On a Jetson it comes with JetPack as `sudo apt install "
            "libnvinfer-bin`.".format(place)
        )
    return open_tool(path)


def open_tool(path: str) -> Tool:
    """Asks a trtexec for its version; raises as `find`."""
    try:
        done = subprocess.run(
            [path, "--help"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS_FOR_HELP,
            check=False,
        )
        code, said = done.returncode, done.stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadRequest("{} does not start: {}. Install TensorRT again.".format(path, error)) from error
    match = _BANNER.search(said)
    if match is None:
        last = (said.strip().splitlines() or ["nothing"])[-1]
        raise BadRequest(
            "{} does not say which TensorRT it is of (exit code {}; it said: {}). TensorRT 8.0 or newer is needed, all "
            "parts of one version.".format(path, code, last.strip().rstrip("."))
        )
    version = _version(int(match.group(1)))
    if version < _OLDEST:
        raise BadRequest("{} is of TensorRT {}.{}.{}; 8.0 or newer is needed.".format(path, *version))
    return Tool(path, version)


def why_unspeakable(what: str, names: Sequence[str]) -> str:
    """Why trtexec's flags cannot name some of these, which are shapes, precisions or inputs; empty where they can."""
    found = [name for name in names if _UNSPEAKABLE.search(name)]
    if not found:
        return ""
    return "trtexec's flags for {} have no way to write these names: {}. Use TensorRT's Python module.".format(
        what, some(found)
    )


def shape_flag(flag: str, shapes: Mapping[str, Sequence[int]]) -> Sequence[str]:
    """One flag with the shape of each input by name; none where there are no shapes."""
    pairs = ["{}:{}".format(name, "x".join(map(str, shapes[name]))) for name in sorted(shapes)]
    return ["--{}={}".format(flag, ",".join(pairs))] if pairs else []


def some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (" and {} more".format(more) if more > 0 else "")


def _version(number: int) -> Tuple[int, int, int]:
    """8502 is 8.5.2, and 100300 is 10.3.0."""
    if number < 10000:
        return number // 1000, number // 100 % 10, number % 100
    return number // 10000, number // 100 % 100, number % 100
