"""A bench for a person: its sides and control, what may be claimed of each, and what a reader must know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.latency.protocol import ITSELF, Effort
from deploy_attn.engines.latency.result import Latency
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.rivals.rival import RIVALS

if TYPE_CHECKING:
    from deploy_attn.benching.bench import BenchReport
    from deploy_attn.benching.record import Record
    from deploy_attn.engines.latency.result import Blocks, Comparison
    from deploy_attn.engines.pairs import Paired

_RATIO = (
    "ratio: the other's time over the artifact's within a pair, above 1 where the artifact is faster; against itself "
    "it would be 1, and how far from 1 its median may lie is the error bar."
)
COLUMNS = ("what", "median ms", "p10", "p90", "ratio", "p10..p90", "pairs")


def rivals_from_texts(texts: Sequence[str] | None) -> tuple[str, ...]:
    """The names of `--against`, which may be given several times and hold several each.

    Raises:
        BadRequest: one is empty.
    """
    names = tuple(name.strip() for text in texts or () for name in text.split(","))
    if not all(names):
        raise BadRequest(f"--against {','.join(texts or ())!r} names an empty rival; write it as naive,eager.")
    return names


def effort_from_options(pairs: int | None, seconds: float | None, cold: bool) -> Effort:
    """How long to measure; a time that is named holds, however few pairs it is for.

    Raises:
        BadRequest: both are named, or what cannot be.
    """
    if pairs is not None and seconds is not None:
        raise BadRequest(f"--pairs {pairs} and --seconds {seconds:g} were given, and one decides the other. Give one.")
    return Effort(pairs, cold=cold) if seconds is None else Effort(None, seconds, cold, least=1)


def rows(record: Record) -> list[tuple[str, ...]]:
    """A comparison as `COLUMNS` has it: the artifact, what it is compared with, and the control."""
    found = record.comparison
    own = (found.candidate.label, *_times(found.pairs.second_s), "", "", "")
    control = ("  itself again", "", "", "", *_ratio(found.control))
    if found.baseline.label == ITSELF:
        return [own, control]
    return [own, (f"  {found.baseline.label}", *_times(found.pairs.first_s), *_ratio(found.pairs)), control]


def lines(report: BenchReport) -> Iterator[str]:
    """What a reader of the table must know, a line each."""
    for record in report.records:
        found = record.comparison
        what = f"{record.precision} against {found.baseline.label}"
        yield found.claim or f"{what}: no claim, error bar {100 * found.error:.1f} %. {found.refused}"
        if _other_settings(found):
            yield f"{what}: that ran with {_other_settings(found)}."
        if found.blocks.repeated:
            yield f"{what}: {_blocks(found.blocks)}"
        restless = [side for side, one in found.conditions["warm_up"].items() if not one["settled"]]
        if restless:
            yield f"{what}: the times of {' and '.join(restless)} had not settled when the pairs began."
    for missed in report.not_compared:
        yield f"{missed.precision} against {missed.baseline}: not compared. {missed.reason}"
    yield from report.notes
    for precision in dict.fromkeys(record.precision for record in report.records):
        yield _conditions(precision, [one.comparison for one in report.records if one.precision == precision])
    if any(one.precision != "fp32" and one.comparison.baseline.label in RIVALS for one in report.records):
        yield "rivals compute in FP32, in whichever precision the artifact does."
    if report.records:
        yield _RATIO
        yield f"kept in {report.file}"


def _blocks(blocks: Blocks) -> str:
    spoiled = f", and {blocks.spoiled} of the {blocks.kept} that count are no better" if blocks.spoiled else ""
    return f"{blocks.repeated} blocks of pairs were repeated{spoiled}: {'; '.join(blocks.reasons)} meanwhile."


def _times(seconds: Sequence[float]) -> tuple[str, ...]:
    found = Latency(tuple(1e3 * one for one in seconds)).as_dict()
    return tuple(f"{found[key]:.3f}" for key in ("median_ms", "p10_ms", "p90_ms"))


def _ratio(pairs: Paired) -> tuple[str, ...]:
    found = pairs.as_dict()
    return f"{found['median']:.3f}", f"{found['p10']:.2f}..{found['p90']:.2f}", str(found["pairs"])


def _conditions(precision: str, found: Sequence[Comparison]) -> str:
    """Of one precision, which has settings of its own; the background load is the most of all its comparisons."""
    conditions, own = found[-1].conditions, found[-1].candidate.conditions
    cores = [one.conditions["background_cores"] for one in found]
    parts = [
        f"{own.get('engine')} {own.get('version')}",
        _settings(own) if conditions.get("threads") is not None else "",
        _caches(conditions),
        str(conditions["machine"]["cpu"]),
        _background(max((one for one in cores if one is not None), default=None)),
    ]
    return f"conditions of {precision}: {', '.join(filter(None, parts))}"


def _settings(session: Mapping[str, Any]) -> str:
    """Of a session of onnxruntime on a CPU."""
    return (
        f"{session['intra_op_threads']} thread(s), no spinning, level {session['optimisation']}, "
        f"subnormals {session['denormals']}"
    )


def _other_settings(found: Comparison) -> str:
    """Those of the baseline, where it is such a session too and has others."""
    own, other = found.candidate.conditions, found.baseline.conditions
    if found.conditions.get("threads") is None or other.get("engine") != own.get("engine"):
        return ""
    return "" if _settings(other) == _settings(own) else _settings(other)


def _caches(conditions: Mapping[str, Any]) -> str:
    flushed = conditions["flushed_bytes"]
    size = "" if flushed is None else f", {flushed >> 20} MiB written before each timed call"
    return f"caches {conditions['cache']}{size}"


def _background(cores: float | None) -> str:
    return "background load not told here" if cores is None else f"others used {cores:.2f} cores meanwhile"
