"""A verdict for a person: the checks, the times, the power, what may have spoiled them, and one last line."""

from typing import Any, List, Mapping

from .parity import is_widened
from .verdict import BoardVerdict, check_table, failure

_TIMES = ("median", "p10", "p90", "p99", "min")


def summary(verdict: BoardVerdict) -> str:
    """The lines that end a run, without colours."""
    lines = ["", "{} for {}, {}".format(verdict.name, verdict.target, _engine(verdict)), ""]
    if verdict.checks:
        lines += check_table(verdict.checks) + [""]
    lines += _reasons(verdict)
    lines += ["compared: {}".format(text) for text in sorted({one.compared for one in verdict.checks if one.compared})]
    lines += [failure(check) for check in verdict.checks if not check.passed]
    for precision in verdict.timing:
        lines += timing_lines(precision, verdict.timing[precision])
        lines += [power_line(precision, verdict.power.get(precision) or {})]
    lines += _temperatures(verdict)
    lines += ["warning: {}".format(text) for text in verdict.warnings]
    lines += ["problem: {}".format(text) for text in verdict.problems]
    passed = sum(check.passed for check in verdict.checks)
    mark = "PASS" if verdict.passed else "FAIL"
    return "\n".join(
        lines + ["{}  {} of {} checks hold in {}".format(mark, passed, len(verdict.checks), _engine(verdict))]
    )


def timing_lines(precision: str, timing: Mapping[str, Any]) -> List[str]:
    """Latency of the graph alone and end to end, and what a reader must know of them."""
    lines = []
    for name, title in (("compute", "compute"), ("end_to_end", "end to end")):
        found = timing.get(name)
        if found:
            per_second = found.get("per_second")
            lines.append(
                "{} in {}: {} ms (n = {}{}){}".format(
                    title,
                    precision,
                    ", ".join("{} {:.4g}".format(word, found[word + "_ms"]) for word in _TIMES),
                    found["n"],
                    " of {} in a row".format(found["loop"]) if found["loop"] > 1 else "",
                    "" if per_second is None else ", {:.4g} per second".format(per_second),
                )
            )
    return lines + ["  {}".format(note) for note in timing.get("notes") or ()]


def power_line(precision: str, power: Mapping[str, Any]) -> str:
    """What one inference takes, with the number of samples, or why that is not known."""
    if power.get("refused") or power.get("joules_per_inference") is None:
        return "power in {}: {}".format(precision, power.get("refused") or "not measured")
    above = power.get("joules_per_inference_above_idle")
    return "power in {}: {:.3g} mJ per inference{}, {:.2f} W mean ({} samples at {:.1f} Hz, {})".format(
        precision,
        1e3 * power["joules_per_inference"],
        "" if above is None else ", {:.3g} mJ of it above idle".format(1e3 * above),
        power["mean_watts"],
        power["samples"],
        power["hz"],
        power["source"],
    )


def _engine(verdict: BoardVerdict) -> str:
    return "{} {}".format(verdict.conditions.get("engine"), verdict.conditions.get("version"))


def _reasons(verdict: BoardVerdict) -> List[str]:
    """Why a check was allowed more than others of its precision."""
    return [
        "{}, {}: {}".format(check.graph, check.case, check.tolerance.reason)
        for check in verdict.checks
        if is_widened(check.tolerance)
    ]


def _temperatures(verdict: BoardVerdict) -> List[str]:
    before, after = verdict.temperatures.get("before") or {}, verdict.temperatures.get("after") or {}
    shown = ["{} {:.0f} to {:.0f}".format(zone, before[zone], after[zone]) for zone in before if zone in after]
    return ["temperatures in deg C, before and after: {}".format(", ".join(shown))] if shown else []
