"""The files that trtexec writes: --exportOutput and --exportTimes, as each version has them."""

import io
import os
import re
from typing import Dict, Iterator, List, Tuple

import numpy as np

from .errors import DeployAttnError
from .timing import Samples, WarmUp

# Half a unit of the sixth digit of 1.00000: how far a value may be off that came through --exportOutput.
ROUNDING = 5e-6

_ROW = re.compile(r"\{[^{}]*\}")
_NUMBER = re.compile(r'"(\w+)"\s*:\s*([-+.\deE]+)')
_OUTPUT = re.compile(
    r'\{\s*"name"\s*:\s*"(?P<name>.*?)"\s*,\s*"dimensions"\s*:\s*"(?P<shape>[\dx]*)"\s*,'
    r'\s*"values"\s*:\s*\[(?P<values>[^\]]*)\]\s*\}',
    re.DOTALL,
)


def read_outputs(path: str) -> Dict[str, np.ndarray]:
    """The outputs of a file of --exportOutput, in float32. It is JSON but for NaN and Inf, written as C++ does.

    Raises:
        DeployAttnError: it is missing, or says something else.
    """
    text = whole_text(path)
    outputs = {}
    for match in _OUTPUT.finditer(text):
        shape = tuple(int(extent) for extent in match.group("shape").split("x") if extent)
        try:
            values = [float(word) for word in match.group("values").split(",") if word.strip()]
            outputs[match.group("name")] = np.array(values, dtype=np.float32).reshape(shape)
        except ValueError as error:
            raise DeployAttnError(
                "trtexec wrote an output {!r} of {} that cannot be read: {}.".format(
                    match.group("name"), match.group("shape"), error
                )
            ) from error
    if not outputs or len(outputs) != text.count('"values"'):
        raise DeployAttnError("trtexec wrote outputs in a form that is not known: {!r} ...".format(text[:80]))
    return outputs


def read_times(path: str, warm_up_ms: float) -> Tuple[Samples, Samples]:
    """(compute, end to end) of a file of --exportTimes; rows of the warm-up, which 8.x writes too, are left out.

    Raises:
        DeployAttnError: it is missing, has another form, or no row after the warm-up.
    """
    compute: List[float] = []
    latency: List[float] = []
    first, last, dropped = None, 0.0, 0
    for row in _rows(path):
        try:
            if row["startComputeMs"] < warm_up_ms:
                dropped += 1
                continue
            compute.append(row["computeMs"])
            latency.append(row["latencyMs"])
            first = row["startH2dMs"] if first is None else first
            last = max(last, row["endD2hMs"])
        except KeyError as error:
            raise DeployAttnError("trtexec wrote times in a form that is not known: no {}.".format(error)) from error
    if first is None:
        raise DeployAttnError(
            "trtexec wrote no times beyond its warm-up of {:g} ms. Give it more --duration.".format(warm_up_ms)
        )
    seconds = (last - first) / 1e3
    warm_up = WarmUp(warm_up_ms / 1e3, dropped or None, None, None)
    return Samples(compute, 1, seconds, warm_up), Samples(latency, 1, seconds, warm_up)


def _rows(path: str) -> Iterator[Dict[str, float]]:
    """The rows of --exportTimes one by one: those of a minute are too many to hold as JSON on a small board."""
    rest = ""
    try:
        with io.open(path, encoding="utf-8", errors="replace") as stream:
            for block in iter(lambda: stream.read(1 << 16), ""):
                rest += block
                end = 0
                for match in _ROW.finditer(rest):
                    end = match.end()
                    yield {name: float(value) for name, value in _NUMBER.findall(match.group(0))}
                rest = rest[end:]
    except (OSError, ValueError) as error:
        raise DeployAttnError("trtexec wrote no times that can be read: {}.".format(error)) from error


def whole_text(path: str) -> str:
    """Raises DeployAttnError where trtexec did not write it."""
    try:
        with io.open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError as error:
        raise DeployAttnError(
            "trtexec did not write {} ({}).".format(os.path.basename(path), error.strerror or error)
        ) from error
