"""What a run found, as verdict.json and as a few lines for a person."""

import contextlib
import io
import json
import os
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from .metrics import finite_or_none
from .parity import Check

VERDICT = "verdict.json"
SCHEMA = 1
_COLUMNS = ("graph", "bracket", "case", "output", "RMS relative", "allowed", "max abs", "cosine", "")
_RIGHT = ("RMS relative", "allowed", "max abs", "cosine")


class BoardVerdict(NamedTuple):
    """What a run found on a board, and under which conditions.

    `timing` and `power` are by precision; `problems` say why the verdict is
    not PASS beyond the checks, `warnings` what may have spoiled a number.
    """

    name: str
    target: str
    engine: str
    checks: Tuple[Check, ...]
    conditions: Mapping[str, Any]
    board: Mapping[str, Any]
    builds: Mapping[str, Any]
    timing: Mapping[str, Any]
    power: Mapping[str, Any]
    temperatures: Mapping[str, Any]
    throttling: Mapping[str, Any]
    warnings: Tuple[str, ...]
    problems: Tuple[str, ...]
    capsule: Mapping[str, Any]
    seconds: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return bool(self.checks) and not self.problems and all(check.passed for check in self.checks)

    def as_dict(self) -> Dict[str, Any]:
        """As verdict.json holds it: the host's keys, then the board's."""
        return {
            "engine": self.engine,
            "passed": self.passed,
            "checks": [check.as_dict() for check in self.checks],
            "conditions": _json_ready(self.conditions),
            "schema_version": SCHEMA,
            "name": self.name,
            "target": self.target,
            "board": _json_ready(self.board),
            "builds": _json_ready(self.builds),
            "timing": _json_ready(self.timing),
            "power": _json_ready(self.power),
            "temperatures": _json_ready(self.temperatures),
            "throttling": _json_ready(self.throttling),
            "warnings": list(self.warnings),
            "problems": list(self.problems),
            "capsule": _json_ready(self.capsule),
            "seconds": _json_ready(self.seconds),
        }


def text_of(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def write_verdict(folder: str, verdict: BoardVerdict) -> str:
    """Writes verdict.json whole or not at all; its path."""
    path = os.path.join(folder, VERDICT)
    draft = "{}.{}.partial".format(path, os.getpid())
    try:
        with io.open(draft, "w", encoding="ascii") as stream:
            stream.write(text_of(verdict.as_dict()))
            stream.flush()
            os.fsync(stream.fileno())  # a board is switched off without asking
        os.replace(draft, path)
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
    return path


def remove_verdict(folder: str) -> None:
    """A run that does not end leaves no verdict, also not that of the one before."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, VERDICT))


def check_table(checks: Sequence[Check]) -> List[str]:
    """The host's table of checks in plain text: headings, a rule, a line for each check."""
    rows = [_cells(check) for check in checks]
    widths = [max(len(row[place]) for row in rows + [_COLUMNS]) for place in range(len(_COLUMNS))]

    def line(cells: Sequence[str]) -> str:
        parts = [
            cell.rjust(width) if heading in _RIGHT else cell.ljust(width)
            for cell, width, heading in zip(cells, widths, _COLUMNS)
        ]
        return "   ".join(parts).rstrip()

    return [line(_COLUMNS), "-" * (sum(widths) + 3 * (len(widths) - 1))] + [line(row) for row in rows]


def failure(check: Check) -> str:
    """One sentence on a check that does not hold."""
    place = "{}, {}, {}, {}".format(check.graph, check.bracket, check.case, check.output)
    found = check.comparison
    if found is None:
        return "{}: {}".format(place, check.error)
    if found.non_finite:
        return "{}: {} values are NaN or Inf, the first at {}".format(place, found.non_finite, found.worst_index)
    return "{}: RMS relative {:.2e} of {:.0e} allowed; worst element {} is {:.6g}, expected {:.6g}".format(
        place,
        found.rms_relative,
        check.tolerance.rms_relative,
        found.worst_index,
        found.worst_actual,
        found.worst_expected,
    )


def _cells(check: Check) -> Tuple[str, ...]:
    measured = ("-", "-", "-")
    found = check.comparison
    if found is not None:
        measured = (
            "{:.1e}".format(found.rms_relative),
            "{:.1e}".format(found.max_abs),
            "{:.7f}".format(found.cosine),
        )
    allowed = "{:.0e}".format(check.tolerance.rms_relative)
    mark = "ok" if check.passed else "FAIL"
    return (check.graph, check.bracket, check.case, check.output, measured[0], allowed) + measured[1:] + (mark,)


def _json_ready(value: Any) -> Any:
    """A value as JSON holds it: tuples of names as objects, what is not finite as null."""
    if hasattr(value, "_asdict"):
        return _json_ready(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _json_ready(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_ready(one) for one in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return finite_or_none(float(value))
