"""A module's options as given -> checked settings, without torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.modules.catalogue import Constraint, Entry, Option, OptionValue, Settings, entry
from deploy_attn.modules.formulas import evaluate

_FARTHEST = 4096  # how far from a value that does not fit one that does is looked for
_MOST_WEIGHTS = 2**29  # 2 GiB in FP32: what one ONNX file can surely hold


def settings(name: str, channels: int | None, options: Mapping[str, object]) -> dict[str, OptionValue]:
    """Channels and all options of a module, checked, defaults filled in.

    Args:
        name: a catalogue name.
        channels: channels of the feature map; None for a module that does not ask.
        options: under the catalogue's names or the source's own.

    Raises:
        BadRequest: unknown option, wrong type, or a constraint that fails.
    """
    found = entry(name)
    known = {option.name: option for option in found.options}
    values: dict[str, OptionValue] = {} if channels is None else {"channels": channels}
    given_names: set[str] = set()
    values.update({option.name: option.default for option in found.options})
    for given, value in options.items():
        option_name = found.source_arguments.get(given, given)
        if option_name not in known:
            raise BadRequest(f"{name} has no option {given!r}. {_options_line(found)}")
        if option_name in given_names:
            raise BadRequest(f"Option {option_name} of {name} is given twice, once as {given!r}. Give it once.")
        given_names.add(option_name)
        values[option_name] = _typed(name, known[option_name], value)
    _check(found, found.constraints, values)
    _check_weights(found, values)
    return values


def _check_weights(found: Entry, values: Settings) -> None:
    channels = values.get("channels", 1)
    count = evaluate(found.parameters, channels, 1, 1, values)
    if max(count, channels) > _MOST_WEIGHTS:
        given = ", ".join(f"{name}={option_text(value)}" for name, value in values.items())
        raise BadRequest(
            f"{found.name} with {given} would hold {count} weights; at most {_MOST_WEIGHTS} are possible. "
            "Choose smaller values."
        )


def check_map(name: str, values: Settings, height: int, width: int) -> None:
    """Raises BadRequest for a map that a module with these settings cannot take."""
    found = entry(name)
    _check(found, found.map_constraints, {**values, "map_height": height, "map_width": width})


def check_open_map(name: str, values: Settings) -> None:
    """Raises BadRequest where a module's graph is made for one height and width."""
    found = entry(name)
    for constraint in found.open_map_constraints:
        if not constraint.holds(values):
            raise BadRequest(
                f"{name} cannot leave height and width open: it needs {constraint.text}. "
                "Export one artifact for each size, without --dynamic-size."
            )


def source_options(name: str, arguments: Mapping[str, object]) -> dict[str, object]:
    """Renames the source's own constructor arguments to the catalogue's vocabulary."""
    names = entry(name).source_arguments
    return {names.get(key, key): value for key, value in arguments.items()}


def option_text(value: OptionValue) -> str:
    """A value as --set takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _check(found: Entry, constraints: tuple[Constraint, ...], values: Settings) -> None:
    broken = [constraint for constraint in constraints if not constraint.holds(values)]
    if not broken:
        return
    about = tuple(dict.fromkeys(name for constraint in broken for name in constraint.about if name in values))
    given = ", ".join(f"{name}={option_text(values[name])}" for name in about)
    needed = " and ".join(constraint.text for constraint in broken)
    alternatives = "; or ".join(filter(None, (_what_fits(found, name, values, constraints) for name in about)))
    advice = f" What would fit: {alternatives}." if alternatives else ""
    raise BadRequest(f"{found.name} cannot take {given}: it needs {needed}.{advice} {_options_line(found)}")


def _what_fits(found: Entry, name: str, values: Settings, constraints: Iterable[Constraint]) -> str:
    """Values of one option with which every constraint holds: the choices, or the nearest below and above."""
    value = values[name]
    if isinstance(value, int) and not isinstance(value, bool):
        below = range(min(value - 1, _FARTHEST), 0, -1)
        above = range(max(value + 1, 1), value + _FARTHEST)
        sides = [(other for other in side if _hold(constraints, {**values, name: other})) for side in (below, above)]
        fitting: list[OptionValue] = [other for side in sides for other in itertools.islice(side, 1)]
    else:
        choices = next((option.choices for option in found.options if option.name == name), ())
        others: tuple[OptionValue, ...] = (not value,) if isinstance(value, bool) else choices
        fitting = [other for other in others if _hold(constraints, {**values, name: other})]
    return " or ".join(f"{name}={option_text(other)}" for other in fitting)


def _hold(constraints: Iterable[Constraint], values: Settings) -> bool:
    return all(constraint.holds(values) for constraint in constraints)


def _options_line(found: Entry) -> str:
    if not found.options:
        return f"{found.name} takes no options besides channels."
    return (
        "Options and their defaults: "
        + ", ".join(f"{option.name}={option_text(option.default)}" for option in found.options)
        + "."
    )


def _typed(name: str, option: Option, value: object) -> OptionValue:
    problem = BadRequest(f"Option {option.name} of {name} takes {_wanted(option)}, got {value!r}.")
    if isinstance(option.default, tuple):
        return _several(option, value, problem)
    kind = type(option.default)
    if isinstance(value, str) and kind is not str:
        value = _parsed(value, kind, problem)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise problem
    if option.choices and value not in option.choices:
        raise problem
    if isinstance(value, (int, float)) and not _within(option, value):
        raise problem
    return value


def _several(option: Option, value: object, problem: BadRequest) -> tuple[int, ...]:
    """Numbers from a tuple, a list or text with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (tuple, list)) or not parts:
        raise problem
    numbers: list[Any] = [_parsed(part, int, problem) if isinstance(part, str) else part for part in parts]
    if not all(type(number) is int and _within(option, number) for number in numbers):
        raise problem
    return tuple(numbers)


def _within(option: Option, value: float) -> bool:
    # Written so that NaN, which compares with nothing, is refused.
    above = option.minimum is None or value >= option.minimum
    return above and (option.maximum is None or value <= option.maximum)


def _wanted(option: Option) -> str:
    if option.choices:
        return f"one of {', '.join(option.choices)}"
    several = isinstance(option.default, tuple)
    wanted = "int, or several with commas," if several else type(option.default).__name__
    if option.minimum is not None:
        wanted += f" of at least {option.minimum:g}"
    if option.maximum is not None:
        wanted += f" and at most {option.maximum:g}"
    return wanted


def _parsed(text: str, kind: type, problem: BadRequest) -> object:
    if kind is bool:
        truth = {"true": True, "false": False}
        if text.lower() not in truth:
            raise problem
        return truth[text.lower()]
    if not text.isascii() or "_" in text:
        raise problem
    try:
        return kind(text)
    except ValueError:
        raise problem from None
