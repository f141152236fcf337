"""JSON that came from elsewhere: read within a bound, values asked for by type, mistakes named by key."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from deploy_attn.jetson.errors import BadRequest

_MOST_BYTES = 16 << 20
_MOST_SHOWN = 60


@dataclass(frozen=True)
class Fields:
    """An object of a JSON file.

    `place` is its path inside the file, as `checks[3].`; `remedy` closes each message. Whatever is not of the
    type that is asked for raises BadRequest, which names file and key.
    """

    file: Path
    values: Mapping[str, Any]
    remedy: str
    place: str = ""

    def text(self, key: str) -> str:
        value = self._get(key)
        return value if isinstance(value, str) else self.refuse(key, "is {}, and not a text")

    def flag(self, key: str) -> bool:
        value = self._get(key)
        return value if isinstance(value, bool) else self.refuse(key, "is {}, and neither true nor false")

    def number(self, key: str) -> float:
        """A finite number; NaN for null, as which verdicts write what is not finite."""
        value = self._get(key)
        if value is None:
            return math.nan
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self.refuse(key, "is {}, and not a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        return number if math.isfinite(number) else self.refuse(key, "is {}, and not a finite number")

    def count(self, key: str) -> int:
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            self.refuse(key, "is {}, and not a count")
        return value

    def part(self, key: str) -> Fields:
        value = self._get(key)
        if not isinstance(value, dict):
            self.refuse(key, "is {}, and not an object")
        return Fields(self.file, value, self.remedy, f"{self.place}{key}.")

    def parts(self, key: str) -> list[Fields]:
        """The objects of a list."""
        places = [f"{self.place}{key}[{index}]" for index in range(len(self._list(key)))]
        for place, value in zip(places, self._list(key)):
            if not isinstance(value, dict):
                raise self._error(place, f"is {_shown(value)}, and not an object")
        return [Fields(self.file, value, self.remedy, f"{at}.") for at, value in zip(places, self._list(key))]

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where there is none."""
        if not self.has(key):
            return ()
        found = self._list(key)
        return tuple(found) if all(isinstance(one, str) for one in found) else self.refuse(key, "holds more than texts")

    def counts(self, key: str) -> tuple[int, ...]:
        """A list of counts."""
        found = self._list(key)
        whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in found)
        return tuple(found) if whole else self.refuse(key, "is {}, and not a list of counts")

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers; NaN for null."""
        found = {str(place): value for place, value in enumerate(self._list(key))}
        listed = Fields(self.file, found, self.remedy, f"{self.place}{key}.")
        return tuple(listed.number(place) for place in found)

    def has(self, key: str) -> bool:
        """Whether it is there and not null."""
        return self.values.get(key) is not None

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raises BadRequest over a key; `{}` in the problem stands for its value."""
        raise self._error(f"{self.place}{key}", problem.replace("{}", _shown(self.values.get(key))))

    def _get(self, key: str) -> Any:
        if key not in self.values:
            raise self._error(f"{self.place}{key}", "is missing")
        return self.values[key]

    def _list(self, key: str) -> list[Any]:
        value = self._get(key)
        return value if isinstance(value, list) else self.refuse(key, "is {}, and not a list")

    def _error(self, place: str, problem: str) -> BadRequest:
        return BadRequest(f"{self.file} is not read: {place!r} {problem}. {self.remedy}")


def read_fields(file: Path, remedy: str) -> Fields:
    """The object that a JSON file holds.

    Raises:
        BadRequest: no plain file, too large, not JSON, or JSON that Python takes and the format does not: NaN, a
            number without end, a key twice.
    """
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BadRequest(f"{file} is not read: it is not a plain file. {remedy}")
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise BadRequest(f"{file} is not read: it is larger than {_MOST_BYTES >> 20} MiB. {remedy}")
        values = json.loads(
            content.decode("utf-8-sig"),
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_without_repeats,
        )
    except OSError as error:
        raise BadRequest(f"{file} is not read: {error.strerror or error}. {remedy}") from error
    except RecursionError as error:
        raise BadRequest(f"{file} is not read: it is nested too deeply. {remedy}") from error
    except ValueError as error:
        raise BadRequest(f"{file} is not read: it is not JSON ({_shortened(str(error))}). {remedy}") from error
    if not isinstance(values, dict):
        raise BadRequest(f"{file} is not read: it holds {_shown(values)}, and not an object. {remedy}")
    return Fields(file, values, remedy)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{_shortened(text)} is too large for a number")
    return number


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{_shown(name)} is there twice")
        found[name] = value
    return found


def _shown(value: object) -> str:
    """A value in a message: short, printable, and a long container by its kind."""
    if isinstance(value, (dict, list)):
        kind = "an object" if isinstance(value, dict) else "a list"
        return f"{kind} of {len(value)}" if value else f"an empty {kind.split()[1]}"
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "an integer of more than 64 bits"
    return _shortened(json.dumps(value))


def _shortened(text: str) -> str:
    plain = text if text.isprintable() else ascii(text)[1:-1]
    return plain if len(plain) <= _MOST_SHOWN else f"{plain[: _MOST_SHOWN - 3]}..."
