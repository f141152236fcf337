"""A module's options as given -> checked settings, without torch."""

from __future__ import annotations

from collections.abc import Mapping

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.modules.catalogue import Entry, Option, OptionValue, Settings, entry


def settings(name: str, channels: int, options: Mapping[str, object]) -> dict[str, OptionValue]:
    """Channels and all options of a module, checked, defaults filled in.

    Args:
        name: a catalogue name.
        channels: channels of the feature map.
        options: under the catalogue's names or the source's own.

    Raises:
        BadRequest: unknown option, wrong type, or a constraint that fails.
    """
    found = entry(name)
    known = {option.name: option for option in found.options}
    values: dict[str, OptionValue] = {"channels": channels}
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
    _check(found, values)
    return values


def _check(found: Entry, values: Settings) -> None:
    for constraint in found.constraints:
        if not constraint.holds(values):
            given = ", ".join(f"{key}={value}" for key, value in values.items())
            raise BadRequest(
                f"{found.name} cannot be built with {given}: it needs {constraint.text}. {_options_line(found)}"
            )


def source_options(name: str, arguments: Mapping[str, object]) -> dict[str, object]:
    """Renames the source's own constructor arguments to the catalogue's vocabulary."""
    names = entry(name).source_arguments
    return {names.get(key, key): value for key, value in arguments.items()}


def _options_line(found: Entry) -> str:
    if not found.options:
        return f"{found.name} takes no options besides channels."
    return "Options: " + ", ".join(f"{option.name}={option.default}" for option in found.options) + "."


def _typed(name: str, option: Option, value: object) -> OptionValue:
    kind = type(option.default)
    problem = BadRequest(f"Option {option.name} of {name} takes {_wanted(option)}, got {value!r}.")
    if isinstance(value, str) and kind is not str:
        value = _parsed(value, kind, problem)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise problem
    if option.choices and value not in option.choices:
        raise problem
    # Written so that NaN, which compares with nothing, is refused.
    if option.minimum is not None and not float(value) >= option.minimum:
        raise problem
    if option.maximum is not None and not float(value) <= option.maximum:
        raise problem
    return value


def _wanted(option: Option) -> str:
    if option.choices:
        return f"one of {', '.join(option.choices)}"
    wanted = f"{type(option.default).__name__}"
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
    try:
        return kind(text)
    except ValueError:
        raise problem from None
