"""How near measured artifacts come to what their target can do at most."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.engines.target import Fact, Target, target_names
from deploy_attn.html_report.blocks import NONE, Block, Missing, Section, Table, Text, columns, number
from deploy_attn.html_report.facts import Standing, labels_of, told
from deploy_attn.html_report.plots import Roof, Work, roofline
from deploy_attn.html_report.subjects import Subject
from deploy_attn.jetson.errors import BadRequest, DeployAttnError

if TYPE_CHECKING:
    from deploy_attn.engines.roofline import Estimate

_BANDWIDTH = "device.bandwidth_gb_per_s"
_PEAKS = ("device.peak_fp32_tflops", "device.peak_fp16_tflops", "device.peak_fp16_tensor_tflops")
# Under it only operations and bytes are read off an estimate, which do not depend on the target.
_ANY = Target(
    name="any",
    title="any",
    family="cpu",
    engine="onnxruntime",
    facts=MappingProxyType({key: Fact(1.0, "recalled") for key in (_BANDWIDTH, *_PEAKS)}),
)


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
        yield from _under_roof(target, [one for one in floors if one.subject.target == target], found, names)
    for target, subject in {one.subject.target: one.subject for one in counted if not one.has_floor}.items():
        why = "does not tell its bandwidth and peak" if target in target_names() else "is not one of `list --targets`"
        yield Missing(
            f"The profile of {target} {why}, so no roof is drawn for it. An estimate for another target, or for a "
            "profile of your own, needs nothing from the device.",
            f"deploy-attn bench {shlex.quote(str(subject.folder))} --estimate --target jetson-orin-nano",
        )
    by_graph = {(one.subject.label, one.precision): one for one in counted}
    elsewhere = [
        (one, by_graph[graph])
        for one in found
        if (graph := (one.subject.label, one.precision)) in by_graph
        and not (by_graph[graph].has_floor and one.target == one.subject.target)
    ]
    for setting in dict.fromkeys(one.setting for one, _ in elsewhere):
        yield from _without_roof(setting, [pair for pair in elsewhere if pair[0].setting == setting], names)


def _counted(subject: Subject, precision: str) -> _Counted:
    from deploy_attn.engines.roofline import estimate

    if subject.target in target_names():
        with contextlib.suppress(BadRequest):  # it does not tell what a floor needs
            return _Counted(subject, precision, estimate(subject.folder, subject.target, precision), True)
    return _Counted(subject, precision, estimate(subject.folder, _ANY, precision), False)


def _under_roof(
    target: str, counted: Sequence[_Counted], found: Sequence[Standing], names: Mapping[str, str]
) -> Iterator[Block]:
    """The floor of each graph on its target, and what was measured there."""
    points: list[Work] = []
    rows: list[tuple[str, ...]] = []
    for one in counted:
        label = names[one.subject.label]
        floor, intensity = one.estimate.floor_ms, one.estimate.intensity
        measured = [
            standing
            for standing in found
            if standing.subject is one.subject and standing.precision == one.precision and standing.target == target
        ]
        points.append(Work(label, one.precision, intensity, one.rate(floor), False))
        points += [Work(label, one.precision, intensity, one.rate(run.median), True) for run in measured]
        rows += [(told(one.subject, names), *_row(one, run)) for run in measured or (None,)]
    yield Text(f"Estimates for {target}, not measurements: the least time that bytes and operations allow.")
    yield roofline(f"Roofline of {counted[0].estimate.title}", _roofs(counted), points)
    numbers = ("Operations", "Least bytes", "Operations a byte", "Floor ms", "Measured ms", "Times the floor")
    yield Table(f"Floors on {target}", columns("Artifact", "Precision", "Bound by", numbers=numbers), tuple(rows))


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
    """The target's lines, from what its estimates used."""
    facts = {key: float(fact.value) for one in counted for key, fact in one.estimate.facts.items()}
    peaks = {
        precision: [1e3 * value for key, value in facts.items() if f".peak_{precision}_" in key]
        for precision in ("fp32", "fp16")
    }
    return [Roof(precision, facts[_BANDWIDTH], max(values)) for precision, values in peaks.items() if values]


def _without_roof(
    setting: str, found: Sequence[tuple[Standing, _Counted]], names: Mapping[str, str]
) -> Iterator[Block]:
    """What was reached where no roof is known."""
    points: list[Work] = []
    rows: list[tuple[str, ...]] = []
    for one, counted in found:
        intensity, rate = counted.estimate.intensity, counted.rate(one.median)
        points.append(Work(names[one.subject.label], one.precision, intensity, rate, True))
        shown = map(number, (counted.operations, intensity, one.median, rate))
        rows.append((told(one.subject, names), one.precision, *shown))
    yield roofline(f"Operations a second measured: {setting}", (), points)
    numbers = ("Operations", "Operations a byte", "Measured ms", "Gop/s")
    yield Table(f"Rates: {setting}", columns("Artifact", "Precision", numbers=numbers), tuple(rows))
