"""How near measured artifacts come to what their target, or the machine that timed them, can do at most."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deploy_attn.engines.machine_limits import PROFILE
from deploy_attn.engines.roofline import BANDWIDTH, NOWHERE
from deploy_attn.engines.target import target_names
from deploy_attn.html_report.blocks import NONE, Block, Figure, Missing, Section, Table, Text, columns, number
from deploy_attn.html_report.facts import Standing, labels_of, told
from deploy_attn.html_report.plots import Roof, Work, roofline
from deploy_attn.html_report.subjects import Subject
from deploy_attn.jetson.errors import BadRequest, DeployAttnError

if TYPE_CHECKING:
    from deploy_attn.engines.roofline import Estimate

_PEAKS = ("device.peak_fp32_tflops", "device.peak_fp16_tflops")


@dataclass(frozen=True)
class _Counted:
    """A graph's operations, and its floor where the target tells its bandwidth and peak."""

    subject: Subject
    precision: str
    estimate: Estimate
    has_floor: bool

    @property
    def operations(self) -> float:
        return float(sum(counts.operations for counts in self.estimate.work.operations.values()))

    def rate(self, milliseconds: float) -> float:
        """10^9 operations a second."""
        return self.operations / milliseconds / 1e6 if milliseconds else math.nan


_Pair = tuple[_Counted, Standing | None]
_Run = tuple[_Counted, Standing]


def roofline_section(subjects: Sequence[Subject], found: Sequence[Standing]) -> Section:
    return Section("Roofline", "roofline", tuple(_blocks(subjects, found)))


def _blocks(subjects: Sequence[Subject], found: Sequence[Standing]) -> Iterator[Block]:
    names = labels_of(subjects)
    counted: list[_Counted] = []
    for subject in subjects:
        for precision in subject.precisions:
            try:
                counted.append(_counted(subject, precision))
            except DeployAttnError as error:
                yield Text(f"{subject.label}, {precision}: no operations are counted. {error}")
    floors = [one for one in counted if one.has_floor]
    for target in dict.fromkeys(one.subject.target for one in floors):
        yield from _on_target([one for one in floors if one.subject.target == target], found, names)
    by_graph = {(one.subject.label, one.precision): one for one in counted}
    elsewhere: list[_Run] = [
        (by_graph[graph], one)
        for one in found
        if (graph := (one.subject.label, one.precision)) in by_graph
        and not (by_graph[graph].has_floor and one.target == one.subject.target)
    ]
    roofed = any(one.roof is not None for _, one in elsewhere)
    for target, subject in {one.subject.target: one.subject for one in counted if not one.has_floor}.items():
        if not (target == PROFILE and roofed):
            yield _without_floor(target, subject)
    for setting in dict.fromkeys(one.setting for _, one in elsewhere):
        here = [pair for pair in elsewhere if pair[1].setting == setting]
        yield from _on_machine(setting, here, names)
        yield from _without_roof(setting, [pair for pair in here if pair[1].roof is None], names)


def _counted(subject: Subject, precision: str) -> _Counted:
    from deploy_attn.engines.roofline import estimate

    if subject.target in target_names():
        with contextlib.suppress(BadRequest):  # it does not tell what a floor needs
            return _Counted(subject, precision, estimate(subject.folder, subject.target, precision), True)
    return _Counted(subject, precision, estimate(subject.folder, NOWHERE, precision), False)


def _without_floor(target: str, subject: Subject) -> Missing:
    folder = shlex.quote(str(subject.folder))
    if target == PROFILE:
        return Missing(
            "What a CPU does at most is measured on the machine that times an artifact, so no roof is drawn yet.",
            f"deploy-attn bench {folder}",
        )
    why = "does not tell its bandwidth and peak" if target in target_names() else "is not one of `list --targets`"
    return Missing(
        f"The profile of {target} {why}, so no roof is drawn for it. An estimate for another target, or for a "
        "profile of your own, needs nothing from the device.",
        f"deploy-attn bench {folder} --estimate --target jetson-orin-nano",
    )


def _on_target(counted: Sequence[_Counted], found: Sequence[Standing], names: Mapping[str, str]) -> Iterator[Block]:
    """The floor of each graph on its target, and what was measured there."""
    target, title = counted[0].subject.target, counted[0].estimate.title
    pairs: list[_Pair] = []
    for one in counted:
        measured = [
            standing
            for standing in found
            if standing.subject is one.subject and standing.precision == one.precision and standing.target == target
        ]
        pairs += [(one, run) for run in measured or (None,)]
    yield Text(f"Estimates for {target}, not measurements: the least time that bytes and operations allow.")
    yield _plot(title, pairs, names)
    yield _floors(target, pairs, names)


def _on_machine(setting: str, found: Sequence[_Run], names: Mapping[str, str]) -> Iterator[Block]:
    """The floor of each graph on the machine that timed it, from what that did at most."""
    roofed: list[_Run] = [
        (replace(one, estimate=one.estimate.on(run.roof), has_floor=True), run)
        for one, run in found
        if run.roof is not None
    ]
    if not roofed:
        return
    highest = [_highest(key, [one.estimate for one, _ in roofed]) for key in (BANDWIDTH, *_PEAKS)]
    said = [
        f"{setting}: floors are estimates, from the most that the same machine did right before these times: "
        f"{'; '.join(filter(None, highest))}."
    ]
    if any(run.disturbed for _, run in roofed):
        said.append("Something else ran while that was measured, so the machine may do more.")
    if any(run.median < one.estimate.floor_ms for one, run in roofed):
        said.append("What took less than its floor ran when the machine did more than while its roof was measured.")
    yield Text(" ".join(said))
    yield _plot(setting, roofed, names)
    yield _floors(setting, roofed, names)


def _highest(key: str, estimates: Sequence[Estimate]) -> str:
    """The highest of a limit that several estimates used, and how it was measured."""
    used = [one.facts[key] for one in estimates if key in one.facts]
    if not used:
        return ""
    fact = max(used, key=lambda one: float(one.value))
    value, name = float(fact.value), key.split(".")[1]
    told = f"{value:.3g} GB/s" if key == BANDWIDTH else f"{1e3 * value:.3g} Gop/s in {name.split('_')[1].upper()}"
    return f"{told} ({fact.note})"


def _plot(title: str, pairs: Sequence[_Pair], names: Mapping[str, str]) -> Figure:
    points: dict[Work, None] = {}
    for one, run in pairs:
        label, intensity = names[one.subject.label], one.estimate.intensity
        points[Work(label, one.precision, intensity, one.rate(one.estimate.floor_ms), False)] = None
        if run is not None:
            points[Work(label, one.precision, intensity, one.rate(run.median), True)] = None
    return roofline(f"Roofline of {title}", _roofs([one for one, _ in pairs]), list(points))


def _floors(place: str, pairs: Sequence[_Pair], names: Mapping[str, str]) -> Table:
    rows = tuple((told(one.subject, names), *_row(one, run)) for one, run in pairs)
    numbers = ("Operations", "Least bytes", "Operations a byte", "Floor ms", "Measured ms", "Times the floor")
    return Table(f"Floors on {place}", columns("Artifact", "Precision", "Bound by", numbers=numbers), rows)


def _row(one: _Counted, measured: Standing | None) -> tuple[str, ...]:
    floor = one.estimate.floor_ms
    run = (
        (NONE, NONE)
        if measured is None
        else (number(measured.median), number(measured.median / floor if floor else math.nan))
    )
    counts = (one.operations, float(one.estimate.work.traffic.least), one.estimate.intensity, floor)
    return one.precision, one.estimate.binds, *map(number, counts), *run


def _roofs(counted: Sequence[_Counted]) -> list[Roof]:
    """The lines from what the estimates used, the highest of each: machines were measured for sizes of their own."""
    facts: dict[str, float] = {}
    for one in counted:
        for key, fact in one.estimate.facts.items():
            facts[key] = max(float(fact.value), facts.get(key, 0.0))
    peaks = {
        precision: [1e3 * value for key, value in facts.items() if f".peak_{precision}_" in key]
        for precision in ("fp32", "fp16")
    }
    return [Roof(precision, facts[BANDWIDTH], max(values)) for precision, values in peaks.items() if values]


def _without_roof(setting: str, found: Sequence[_Run], names: Mapping[str, str]) -> Iterator[Block]:
    """What was reached where no roof is known."""
    if not found:
        return
    points: list[Work] = []
    rows: list[tuple[str, ...]] = []
    for counted, one in found:
        intensity, rate = counted.estimate.intensity, counted.rate(one.median)
        points.append(Work(names[one.subject.label], one.precision, intensity, rate, True))
        shown = map(number, (counted.operations, intensity, one.median, rate))
        rows.append((told(one.subject, names), one.precision, *shown))
    yield roofline(f"Operations a second measured: {setting}", (), points)
    numbers = ("Operations", "Operations a byte", "Measured ms", "Gop/s")
    yield Table(f"Rates: {setting}", columns("Artifact", "Precision", numbers=numbers), tuple(rows))
